-- What a depot has in stock: active products, without the department of purchases.
SELECT d.codigo, p.descripcion, g.departamento, d.existencia, p.precio, d.deposito
FROM MA_DEPOPROD AS d
JOIN MA_PRODUCTOS AS p ON p.codigo = d.codigo
JOIN MA_DEPARTAMENTOS AS g ON g.codigo = p.departamento
WHERE d.deposito = '{codigo_deposito}'
  AND p.activo = 1
  AND p.departamento <> '000017' -- PROCURA
