//! The SQL Servers of the example's depots: three of the four, at 127.0.0.11 to 127.0.0.13; nobody is at 127.0.0.14. Prints their port.

use caudal_tests::tds::model::column;
use caudal_tests::tds::{Certificate, Mssql, Value};

/// Articles of a depot; the server holds as many of another one.
const ARTICLES: i64 = 200;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("caudal-stellar-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let certificate = Certificate::make(&folder, "stellar.example");
    std::fs::remove_dir_all(&folder)?;
    let certificate = certificate?;
    let port = caudal_tests::ports::free_port()?;
    let mut servers = Vec::new();
    for depot in 1..=3_u8 {
        let server =
            Mssql::start_with(&format!("127.0.0.{}", 10 + depot), port, Some(certificate.clone()), true)
                .await?;
        let columns = vec![
            column("codigo", "nvarchar(15)"),
            column("descripcion", "nvarchar(80)"),
            column("departamento", "nvarchar(40)"),
            column("existencia", "decimal(14,4)"),
            column("precio", "money"),
            column("deposito", "nvarchar(10)"),
        ];
        server.create("MA_DEPOPROD", columns, 1);
        for code in 0..ARTICLES * 2 {
            let of = if code < ARTICLES { u32::from(depot) } else { 99 };
            let text = |text: String| Value::Text(text);
            let row = vec![
                text(format!("{code:06}")),
                text(format!("Artículo {code}")),
                text("VÍVERES".to_owned()),
                Value::Decimal(i128::from(code) * 10_000 + i128::from(depot)),
                Value::Decimal(i128::from(code) * 12_345),
                text(format!("{of:04}")),
            ];
            server.put("MA_DEPOPROD", row);
        }
        servers.push(server);
    }
    println!("{port}");
    std::future::pending::<()>().await;
    Ok(())
}
