//! MySQL and MariaDB: binlog capture and snapshot.
