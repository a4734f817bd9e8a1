use super::*;

fn variables(list: &[(&str, &str)]) -> Variables {
    list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

fn systems() -> Systems<'static> {
    Systems { database: ("mysql", "mysql"), sinks: vec![("postgres", &["postgres", "postgresql"])] }
}

fn good(list: &[(&str, &str)]) -> Environment {
    match read(&variables(list), &systems()) {
        Ok(environment) => environment,
        Err(problems) => panic!("{problems:?}"),
    }
}

fn wrong(list: &[(&str, &str)]) -> Vec<String> {
    let problems = read(&variables(list), &systems()).err().expect("refused");
    problems.iter().map(|p| p.to_string().replace('\n', "")).collect()
}

fn text<'a>(environment: &'a Environment, path: &str) -> Option<&'a str> {
    let node = path.split('.').try_fold(&environment.root, |node, step| node.get(step))?;
    match &node.value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

const MAIN: [(&str, &str); 4] = [
    ("ETL_DB_HOST", "mysql-server.com"),
    ("ETL_DB_USER", "readonly@user"),
    ("ETL_DB_PASSWORD", "p@ss/w#rd"),
    ("ETL_DB_DATABASE", "main_database"),
];

#[test]
fn a_database_becomes_a_source_whose_password_stands_by_itself() {
    let e = good(&MAIN);
    assert_eq!(
        text(&e, "sources.main.url"),
        Some("mysql://readonly%40user@mysql-server.com:3306/main_database")
    );
    assert_eq!(text(&e, "sources.main.password"), Some("p@ss/w#rd"));
    assert_eq!((text(&e, "prefix"), text(&e, "http.listen")), (Some("etl"), Some("127.0.0.1:9000")));
    assert_eq!(e.fetched.redact("refused p@ss/w#rd"), "refused ${env:ETL_DB_PASSWORD}");
}

#[test]
fn named_databases_take_host_and_account_of_the_main_one_only_where_they_have_none() {
    let mut all = MAIN.to_vec();
    all.extend([
        ("ETL_DB_INVENTORY_HOST", "inventory-mysql.com"),
        ("ETL_DB_INVENTORY_DATABASE", "inventory_db"),
        ("ETL_DB_INVENTORY_USER", "inv_readonly"),
        ("ETL_DB_OLD_SHOP_DATABASE", "old"),
        ("ETL_SERVICE_NAME", "shop"),
        ("ETL_REGION", "eu-west"),
        ("ETL_BATCH_SIZE", "500"),
    ]);
    let e = good(&all);
    assert_eq!(
        text(&e, "sources.inventory.url"),
        Some("mysql://inv_readonly@inventory-mysql.com:3306/inventory_db")
    );
    // The main account's password goes to no other account.
    assert_eq!(text(&e, "sources.inventory.password"), None);
    assert!(e.notes.iter().any(|n| n.says.contains("no ETL_DB_INVENTORY_PASSWORD is set")));
    assert_eq!(text(&e, "sources.old_shop.url"), Some("mysql://readonly%40user@mysql-server.com:3306/old"));
    assert_eq!(text(&e, "sources.old_shop.password"), Some("p@ss/w#rd"));
    assert_eq!(text(&e, "prefix"), Some("shop.eu-west"));
}

#[test]
fn the_api_is_open_to_other_machines_only_with_a_key() {
    let with = |more: &[(&str, &str)]| good(&[&MAIN[..], more].concat());
    let e = with(&[("ETL_SERVICE_PORT", "9001")]);
    assert_eq!(text(&e, "http.listen"), Some("127.0.0.1:9001"));
    let e = with(&[("ETL_SERVICE_PORT", "9001"), ("ETL_API_KEY", "0123456789abcdef")]);
    assert_eq!(
        (text(&e, "http.listen"), text(&e, "http.api_key")),
        (Some("0.0.0.0:9001"), Some("0123456789abcdef"))
    );
}

#[test]
fn a_sink_takes_all_sources() {
    let all =
        [&MAIN[..], &[("CAUDAL_SINK_URL", "postgres://u:geheim@h/d"), ("ETL_DB_B_DATABASE", "b")]].concat();
    let e = good(&all);
    assert_eq!(text(&e, "sinks.target.type"), Some("postgres"));
    let Some(Value::List(from)) =
        e.root.get("sinks").and_then(|n| n.get("target")?.get("from")).map(|n| &n.value)
    else {
        panic!("from")
    };
    assert_eq!(from.len(), 2);
    assert_eq!(wrong(&[&MAIN[..], &[("CAUDAL_SINK_URL", "ftp://x")]].concat()).len(), 1);
}

#[test]
fn every_variable_that_is_set_is_accounted_for() {
    let mut all = MAIN.to_vec();
    all.extend(KNOWN.iter().map(|(name, _)| {
        let value = match *name {
            "ETL_ENCRYPT_SENSITIVE_DATA" => "false",
            "ETL_ENABLED" => "true",
            "ETL_FULL_SYNC_TIME" => "02:00",
            "ETL_INCREMENTAL_HOURS" => "2",
            "ETL_RETRY_ATTEMPTS" => "3",
            _ => "9000",
        };
        (*name, value)
    }));
    let e = good(&all);
    for (name, _) in &all {
        assert!(e.notes.iter().any(|n| n.variable == *name), "{name}");
    }
}

#[test]
fn mistakes_name_the_variable_and_never_show_its_value() {
    let told = wrong(&[
        ("ETL_DB_PASWORD", "geheim"),
        ("ETL_DB_USER", "u"),
        ("ETL_SERVICE_PORT", "geheim"),
        ("ETL_ENABLED", "perhaps"),
        ("ETL_ENCRYPT_SENSITIVE_DATA", "true"),
        ("ETL_ENCRYPTION_KEY", "geheim"),
        ("ETL_NOPE", "geheim"),
    ]);
    for name in [
        "ETL_DB_PASWORD: unknown",
        "ETL_DB_HOST: is not set",
        "ETL_SERVICE_PORT: is no whole number",
        "ETL_ENABLED: is neither",
        "ETL_ENCRYPT_SENSITIVE_DATA: this version encrypts no data",
        "ETL_NOPE: unknown variable",
    ] {
        assert!(told.iter().any(|t| t.starts_with(name)), "{name}: {told:?}");
    }
    assert!(!told.concat().contains("geheim"), "{told:?}");
}

#[test]
fn switched_off_nothing_is_captured() {
    let e = good(&[&MAIN[..], &[("ETL_ENABLED", "false")]].concat());
    assert!(e.root.get("sources").is_none());
}

#[test]
fn a_time_and_hours_make_sources_that_are_polled_by_the_clock() {
    let with = |more: &[(&str, &str)]| good(&[&MAIN[..], more].concat());
    let e = with(&[]);
    assert_eq!((text(&e, "sources.main.mode"), text(&e, "sources.main.poll.every")), (None, None));
    let e =
        with(&[("ETL_INCREMENTAL_HOURS", "2"), ("ETL_BATCH_SIZE", "500"), ("ETL_TIMEOUT_SECONDS", "300")]);
    assert_eq!(text(&e, "sources.main.mode"), Some("poll"));
    assert_eq!(text(&e, "sources.main.poll.every"), Some("2h"));
    assert_eq!(text(&e, "sources.main.poll.timeout"), Some("300s"));
    let rows = e.notes.iter().find(|n| n.variable == "ETL_BATCH_SIZE").and_then(|n| n.path.clone());
    assert_eq!(rows.as_deref(), Some("sources.main.poll.page_rows"));
    let e = with(&[
        ("ETL_INCREMENTAL_HOURS", "6"),
        ("ETL_FULL_SYNC_TIME", "02:00"),
        ("CAUDAL_TIME_ZONE", "America/Caracas"),
        ("ETL_DB_B_DATABASE", "b"),
    ]);
    for source in ["main", "b"] {
        let at = |key: &str| text(&e, &format!("sources.{source}.{key}")).map(str::to_owned);
        assert_eq!(at("mode").as_deref(), Some("poll"));
        assert_eq!(at("poll.every"), None);
        assert_eq!(at("poll.schedule.cron").as_deref(), Some("0 2,8,14,20 * * *"));
        assert_eq!(at("poll.schedule.zone").as_deref(), Some("America/Caracas"));
    }
    let e = with(&[("ETL_FULL_SYNC_TIME", "2:05")]);
    assert_eq!(text(&e, "sources.main.poll.schedule.cron"), Some("5 2 * * *"));
    assert_eq!(text(&e, "sources.main.poll.schedule.zone"), Some("UTC"));
}

#[test]
fn times_and_hours_that_are_none_are_named_each_once() {
    for (variable, values, says) in [
        ("ETL_INCREMENTAL_HOURS", &["0", "-2", "two", "1.5", "745"][..], "is no whole number in range"),
        ("ETL_FULL_SYNC_TIME", &["24:00", "2", "2:60", "2am", "+2:00", "02:00:00"][..], "is no time of day"),
    ] {
        for value in values {
            let more = [(variable, *value), ("ETL_DB_B_DATABASE", "b")];
            let told = wrong(&[&MAIN[..], &more].concat());
            let named = told.iter().filter(|t| t.starts_with(&format!("{variable}: {says}"))).count();
            assert_eq!((named, told.len()), (1, 1), "{value}: {told:?}");
        }
    }
}
