"""Fills an emulator of BigQuery with what the example reads. Usage: fill.py ENDPOINT PROJECT [productivity]

Without the last word all tables but `productivity_data` are made; with it, that one alone.
"""

import json
import sys
import urllib.request

endpoint, project = sys.argv[1:3]
base = f"{endpoint}/bigquery/v2/projects/{project}"


def post(path, body):
    data = json.dumps(body).encode()
    request = urllib.request.Request(f"{base}/{path}", data, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=60))


def run(sql):
    post("queries", {"query": sql.replace("{}", f"{project}.dashboard"), "useLegacySql": False})


# So many days back from today, the number of a row within its day, and its campaign.
DAYS = "SELECT DATE_SUB(CURRENT_DATE(), INTERVAL d DAY) AS fecha_foto, n FROM UNNEST(GENERATE_ARRAY(0, {days})) AS d, UNNEST(GENERATE_ARRAY(1, {each})) AS n"


def days(days, each):
    return DAYS.format(days=days - 1, each=each)


if sys.argv[3:] == ["productivity"]:
    run("CREATE TABLE `{}.productivity_data` (fecha_foto DATE, correo_agente STRING, archivo STRING, gestiones INT64, pdp INT64, monto NUMERIC) PARTITION BY fecha_foto")
    run(f"INSERT INTO `{{}}.productivity_data` SELECT fecha_foto, CONCAT('agente', CAST(n AS STRING), '@pulso.pe'), 'cartera_marzo', n * 3, MOD(n, 5), CAST(n AS NUMERIC) * 10 + NUMERIC '0.25' FROM ({days(10, 100)})")
    sys.exit()

post("datasets", {"datasetReference": {"projectId": project, "datasetId": "dashboard"}})
run("CREATE TABLE `{}.dashboard_data` (fecha_foto DATE, archivo STRING, cartera STRING, servicio STRING, cuentas INT64, recupero NUMERIC, pct_contac FLOAT64, actualizado TIMESTAMP) PARTITION BY fecha_foto")
run(f"INSERT INTO `{{}}.dashboard_data` SELECT fecha_foto, CONCAT('archivo_', CAST(n AS STRING)), 'TEMPRANA', 'MOVIL', n * 10, CAST(n AS NUMERIC) + NUMERIC '0.5', 0.5, TIMESTAMP '2026-03-01 10:00:00+00' FROM ({days(50, 20)})")
run("CREATE TABLE `{}.evolution_data` (fecha_foto DATE, archivo STRING, serie STRING, valor FLOAT64) PARTITION BY fecha_foto")
run(f"INSERT INTO `{{}}.evolution_data` SELECT fecha_foto, CONCAT('archivo_', CAST(n AS STRING)), 'recupero', n / 4.0 FROM ({days(50, 20)})")
run("CREATE TABLE `{}.assignment_data` (periodo STRING, archivo STRING, cartera STRING, clientes INT64, deuda NUMERIC)")
run("INSERT INTO `{}.assignment_data` SELECT CONCAT('2026-', CAST(10 + MOD(n, 3) AS STRING)), CONCAT('archivo_', CAST(n AS STRING)), 'ALTAS', n, CAST(n AS NUMERIC) * 100 FROM UNNEST(GENERATE_ARRAY(1, 1000)) AS n")
run("CREATE TABLE `{}.gestiones_por_hora` (fecha_foto DATE, hora INT64, canal STRING, archivo STRING, gestiones INT64, contactos INT64) PARTITION BY fecha_foto")
run(f"INSERT INTO `{{}}.gestiones_por_hora` SELECT fecha_foto, MOD(n, 10) + 8, IF(MOD(n, 2) = 0, 'BOT', 'HUMANO'), CONCAT('archivo_', CAST(DIV(n, 20) AS STRING)), 7, 2 FROM ({days(5, 500)})")
