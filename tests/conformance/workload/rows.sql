-- Rows of every type; `@base` keeps the keys of the snapshot and of the stream apart.
INSERT INTO numbers VALUES
  (@base+1, -128, 255, 1, -32768, 65535, -8388608, 16777215, -2147483648, 4294967295, -9223372036854775808, 18446744073709551615, 42,
   -99999, -12345678.90, -12345678901234567890123456789012345.123456789012345678901234567890, 0.123456789, 12345.678,
   0.1, 1234.567, 0.1, 12345.6789, 1901, b'0', b'10101', 18446744073709551615),
  (@base+2, 127, 128, 0, 32767, 32768, 8388607, 8388608, 2147483647, 2147483648, 9223372036854775807, 9223372036854775808, 123456,
   99999, 0.05, 1, 0.000000001, 0.001, -1.5e30, -0.001, -1.7976931348623157e308, 1e-4, 2155, b'1', b'1', 1),
  (@base+3, 0, 0, 1, 0, 0, -1, 0, 0, 0, 0, 0, 0, 7, -0.01, 0, 0, 0, 16777217, 100, 3.141592653589793, 1e5, 2026, b'1', b'0', 0),
  (@base+4, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0.5, 1, 1e10, 1, 1e300, 1, 2000, b'0', b'11111', 256),
  (@base+5, -1, 1, 0, -1, 1, -1, 1, -1, 1, -1, 1, 1, -1, -1, -1, -0.5, 1, 1e-10, 1, 1e-300, 1, 1970, b'0', b'11111', 65535),
  (@base+6, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (@base+7, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 100, 1, 0.1, 1, 3, 1, 1e21, 1, 2024, b'1', b'1', 1),
  (@base+8, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1.28, 1, 0.1, 1, 1.17549435e-38, 1, 123456789012345680, 1, 2024, b'1', b'1', 1),
  (@base+9, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1.29, 1, 0.1, 1, 3.4028234e38, 1, 1234567.0, 1, 2024, b'1', b'1', 1);
INSERT INTO moments (id, d, t, t1, t3, t6, dt, dt1, dt3, dt6, ts, ts1, ts3, ts6, tsn) VALUES
  (@base+1, '1000-01-01', '-838:59:59', '-12:34:56.7', '12:34:56.789', '-00:00:00.000001', '1000-01-01 00:00:00', '2026-02-03 04:05:06.7',
   '2026-02-03 04:05:06.789', '1969-12-31 23:59:59.999999', '1970-01-01 00:00:01', '2026-02-03 04:05:06.7', '2026-02-03 04:05:06.789', '2026-02-03 04:05:06.000001', '2026-02-03 04:05:06'),
  (@base+2, '9999-12-31', '838:59:59', '-00:00:00.1', '-12:34:56.001', '100:00:00.123456', '9999-12-31 23:59:59', '1969-12-31 23:59:59.9',
   '2026-02-03 04:05:06', '2026-02-03 04:05:06.000001', '2038-01-19 03:14:07', '2026-02-03 04:05:06', '2026-02-03 04:05:06.7', '2026-02-03 04:05:06.1', '2026-02-03 04:05:06'),
  (@base+3, '1969-12-31', '00:00:00', '00:00:00', '00:00:00', '00:00:00', '2026-02-03 04:05:00', '2026-02-03 04:05:00',
   '2026-02-03 04:00:00.5', '2026-02-03 00:00:00', '2026-02-03 04:05:00', '2026-02-03 04:05:00', '2026-02-03 04:00:00', '2026-02-03 00:00:00', '2026-02-03 00:00:00'),
  (@base+4, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-02-03 04:05:06');
INSERT INTO texts VALUES
  (CONCAT('k', @base), 1, 'ab', 'trailing ', 'España €', '汉字', 'añ🦫', 'tiny', REPEAT('río ', 100), 'm', 'l',
   X'0102', X'00FF00', X'00', REPEAT(X'00FF', 50), X'DEADBEEF', 'a', 'x,z', '{"a": [1, 2.5, "ñ", null, true], "b": {"c": -1}}'),
  (CONCAT('ñ"\\', @base), -1, '', '汉字 🦫', '', '', '', '', 'it''s "quoted"\\ and\ttabbed\n', '', '', X'0000000000000000', X'', X'', X'', X'',
   'c,d', '', '[]'),
  (CONCAT('k', @base), 2, 'x\u0001', 'a/b<c>&d', NULL, NULL, NULL, NULL, NULL, NULL, NULL, X'FF00', NULL, NULL, NULL, NULL, NULL, 'x,y,z', '"text"'),
  (CONCAT('k', @base), 3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (CONCAT('k', @base), 4, 'x', 'x', 'x', 'x', 'x', 'x', X'1F0D0A', 'x', 'x', X'00', X'00', X'00', X'00', X'00', 'b', 'y', '12345678901234567890');
INSERT INTO places VALUES
  (@base+1, ST_GeomFromText('POINT(1.5 -2.25)'), ST_GeomFromText('POLYGON((0 0,4 0,4 4,0 4,0 0))'), ST_GeomFromText('LINESTRING(0 0,1 1,2 3)'),
   ST_GeomFromText('POLYGON((0 0,4 0,4 4,0 0))'), ST_GeomFromText('MULTIPOINT(0 0,1 1)'), ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))')),
  (@base+2, ST_GeomFromText('POINT(40.25 -3.5)', 4326), ST_GeomFromText('POINT(1 2)', 4326), NULL, NULL, NULL, NULL),
  (@base+3, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO keyless VALUES (@base+1, 'one'), (@base+1, 'one'), (NULL, NULL);
INSERT INTO uniquely VALUES (@base+1, 'one'), (@base+2, NULL);
INSERT INTO orders VALUES (@base+1, 'Ada', 10.00), (@base+2, 'Bob', NULL), (@base+3, 'Cyd', 3.50);
INSERT INTO order_lines (order_id, line, item, qty) VALUES (@base+1, 1, 'pen', 2), (@base+1, 2, 'ink', 2), (@base+3, 1, 'nib', NULL);
INSERT INTO emptied VALUES (@base+1, 'a'), (@base+2, 'b');
INSERT INTO shaped VALUES (@base+1, 1, 'a'), (@base+2, 2, 'b');
INSERT INTO further VALUES (@base+1, X'00FF7F', 'ñandú', TRUE, '', 'long', ST_GeomFromText('MULTILINESTRING((0 0,1 1),(2 2,3 3,4 5))'),
   ST_GeomFromText('MULTIPOLYGON(((0 0,4 0,4 4,0 0)),((9 9,10 9,10 10,9 9)))'), 0.25, -1.5),
  (@base+2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL), (@base+3, X'', '', FALSE, '', '', NULL, NULL, 0, 0);
