# shellcheck shell=bash
# The accounts that every MySQL-family test server has. Sourced after machine.sh.
#   admin / admin-secret   everything: what tests and workloads write with
#   cdc   / cdc-secret     what a capture needs, no more: a test that passes with it proves the documented grants
# ACCOUNT_EXTRA: further statements for one family.
account_statements() {
  cat <<SQL
SET sql_log_bin = 0;
CREATE USER IF NOT EXISTS admin@'%' IDENTIFIED BY 'admin-secret';
GRANT ALL ON *.* TO admin@'%' WITH GRANT OPTION;
CREATE USER IF NOT EXISTS cdc@'%' IDENTIFIED BY 'cdc-secret';
GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO cdc@'%';
${ACCOUNT_EXTRA:-}
SQL
}
