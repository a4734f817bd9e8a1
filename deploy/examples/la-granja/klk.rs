//! The API of the example's stores. Usage: `klk DOWN_FILE`; prints its URL. As long as DOWN_FILE exists the store `tienda_11` does not answer; of
//! `tienda_12` it always gives half of what it counts.

use caudal_tests::klk::{Klk, Reply, article};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let down = std::env::args().nth(1).unwrap_or_else(|| "down".to_owned());
    let klk = Klk::start().await?;
    let today = jiff::Timestamp::now().in_tz("America/Caracas")?.date().to_string();
    for store in 1..=12_u32 {
        let articles = (0..250).map(|code| article(code, f64::from(store * 1000 + code) / 4.0)).collect();
        klk.stock(&format!("tienda_{store:02}"), articles);
        let sale = |n: u32| json!({ "numero": format!("F{store:02}-{n:05}"), "fecha": today, "total": format!("{n}.50") });
        klk.state().sales.insert(format!("tienda_{store:02}"), (1..=40).map(sale).collect::<Vec<Value>>());
    }
    klk.instead(move |asked| {
        if asked.path.contains("tienda_11") && std::path::Path::new(&down).exists() {
            return Some(Reply::text(503, "<html>caja cerrada</html>"));
        }
        if asked.path.ends_with("tienda_12/inventario") {
            let items: Vec<Value> = match asked.parameters.get("page").map(String::as_str) {
                Some("1") => (0..100).map(|code| article(code, 1.0)).collect(),
                _ => Vec::new(),
            };
            return Some(Reply::json(&json!({ "data": { "items": items }, "meta": { "total": 250 } })));
        }
        None
    });
    println!("{}", klk.url());
    std::future::pending::<()>().await;
    Ok(())
}
