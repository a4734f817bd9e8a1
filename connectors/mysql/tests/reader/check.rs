//! What the operator is told.

use crate::server::{Database, servers};
use caudal_core::{Fault, Severity};
use mysql_async::prelude::Queryable;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_the_operators_and_named_with_its_field() {
    for server in servers() {
        let database = Database::create(&server).await;
        let error = database.try_open(None, r#""password":"not-it""#).await.err().expect("refused");
        assert_eq!((error.fault(), error.field_name()), (Fault::Config, Some("sources.test.url")), "{error}");
        assert!(error.hint_text().is_some() && !error.to_string().contains("not-it"));
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_names_what_is_missing_with_its_fix_and_open_refuses_the_same() {
    for server in servers() {
        let database = Database::create(&server).await;
        database.run(&["CREATE TABLE k (id INT PRIMARY KEY)", "CREATE TABLE nokey (n INT)"]).await;
        let check = |extra: String| {
            let source = caudal_mysql::source("test", database.config(&extra)).unwrap();
            async move { source.check().await }
        };
        let found = check(String::new()).await;
        assert!(found.iter().all(|f| f.severity != Severity::Error), "{found:?}");
        let warned: Vec<&str> =
            found.iter().filter(|f| f.severity == Severity::Warning).map(|f| f.subject.as_str()).collect();
        assert!(warned.contains(&format!("{}.nokey", database.name).as_str()), "{warned:?}");

        let missing = check(r#""tables":["nosuch"]"#.to_owned()).await;
        assert!(missing.iter().any(|f| f.severity == Severity::Error && f.message.contains("nosuch")));
        let refused = database.try_open(None, r#""tables":["nosuch"]"#).await.err().expect("refused");
        assert_eq!((refused.fault(), refused.field_name()), (Fault::Config, Some("sources.test.tables")));

        let mut conn = database.connect().await;
        let user = format!("u{}", &database.name[14..]);
        conn.query_drop(format!("CREATE USER '{user}'@'%' IDENTIFIED BY 'pw'")).await.unwrap();
        let address = server.url.rsplit_once('@').unwrap().1.split('/').next().unwrap();
        let text = format!(r#"{{"url":"mysql://{user}:pw@{address}","tables":["{}.k"]}}"#, database.name);
        let poor = caudal_mysql::source("test", serde_json::from_str(&text).unwrap()).unwrap();
        let found = poor.check().await;
        let fixes: Vec<&str> =
            found.iter().filter(|f| f.severity == Severity::Error).filter_map(|f| f.fix.as_deref()).collect();
        assert!(fixes.iter().any(|f| f.starts_with("GRANT REPLICATION SLAVE ON *.* TO")), "{found:?}");
        let refused = poor.open(None).await.err().expect("refused");
        assert_eq!(refused.fault(), Fault::Config, "{refused}");
        conn.query_drop(format!("DROP USER '{user}'@'%'")).await.unwrap();
        database.drop().await;
    }
}
