//! What the page shows of mappings.

use serde_json::{Value, json};

use super::{MARKUP, Site, WIDE};
use crate::harness::{Publisher, eventually};

const MAPPINGS: &str = r#"
    [[default.mapping]]
    name   = "meter"
    topic  = ["meters/{device}", "counters/{device}"]
    except = "meters/test"
    device = "{device}"
    time   = "received"
    table  = "power"
    fields = { power = { max = 5000 } }
    [[default.mapping]]
    name   = "idle"
    topic  = "idle/{device}"
    device = "{device}"
    time   = { path = "at", format = "ms" }
    fields = ["temperature"]
    [[default.mapping]]
    name   = "strict"
    topic  = "other/#"
    has    = ["never"]
    device = "d"
    time   = "received"
    fields = ["x"]
"#;

/// The texts of all elements.
fn texts(browser: &crate::harness::Browser, selector: &str) -> Value {
    browser.run(&format!(
        "return [...document.querySelectorAll({})].map((e) => e.textContent)",
        json!(selector)
    ))
}

#[test]
fn each_mapping_has_a_card_and_topics_that_none_takes_are_listed() {
    let site = Site::start_with(|service| {
        let file = service.dir().join("Mappings.toml");
        std::fs::write(&file, MAPPINGS).unwrap();
        service.set("ROCKET_CONFIG", file.display())
    });
    let Some(site) = site else { return };
    let mut publisher = Publisher::connect(site.broker.port);
    for (topic, payload) in [
        ("meters/m1", r#"{"power":1}"#.to_owned()),
        ("counters/m2", r#"{"power":2}"#.to_owned()),
        ("meters/m1", r#"{"power":9000}"#.to_owned()),
        ("meters/test", r#"{"power":1}"#.to_owned()),
        ("other/first", "{}".to_owned()),
        ("other/<b>markup</b>", json!({"x": MARKUP}).to_string()),
    ] {
        publisher.publish_one(topic, payload);
    }
    let browser = site.browser(WIDE);
    browser.await_text("#mappings li:first-child .head", |text| text.contains("meter"));
    eventually("the card has the figures", || {
        let figures = texts(&browser, "#mappings li:first-child dd");
        let mut figures = figures.as_array()?.clone();
        // How long ago the last message came.
        figures.pop();
        (figures == [json!("3"), json!("2"), json!("1"), json!("1"), json!("0\u{a0}%")])
            .then_some(())
    });
    assert_eq!(
        texts(&browser, "#mappings li:first-child .head > *"),
        json!(["meter", "table power", "time by arrival"])
    );
    let topics = texts(&browser, "#mappings .topics");
    assert_eq!(topics, json!(["meters/{device}, counters/{device}", "idle/{device}", "other/#"]));
    browser.await_text("#mappings li:first-child .reason", |text| {
        text.starts_with("Rejected ") && text.contains(r#"mapping "meter", field "power""#)
    });
    let idle = texts(&browser, "#mappings li:nth-child(2) dd");
    assert_eq!(idle, json!(["0", "0", "0", "0", "–", "none yet"]));
    assert_eq!(
        texts(&browser, "#mappings li:nth-child(2) .head > *"),
        json!(["idle", "table telemetry"])
    );
    assert_eq!(texts(&browser, "#mappings li:nth-child(2) .reason:not([hidden])"), json!([]));

    browser.click("#unmapped-part summary");
    browser.await_text("#unmapped li:first-child", |text| {
        text.starts_with("other/<b>markup</b> · 1 message · ")
    });
    browser.await_text("#unmapped li:nth-child(2)", |text| text.starts_with("other/first · "));
    assert_eq!(browser.run("return document.querySelectorAll('#unmapped b').length"), 0);
    assert_eq!(browser.complaints(), [""; 0]);

    // For scripts, the same.
    let status = site.ingestor.get("/api/v1/status").json();
    let meter = &status["mappings"][0];
    assert_eq!(meter["messages"], 3, "{status}");
    assert_eq!(status["unmapped_topics"][0]["topic"], "other/<b>markup</b>");
}

#[test]
fn without_a_mapping_neither_the_page_nor_the_status_speaks_of_any() {
    let Some(site) = Site::start() else { return };
    let browser = site.browser(WIDE);
    browser.await_text("#broker .state", |text| text == "Connected");
    let is_hidden = browser.run("return document.querySelector('#mappings-card').hidden");
    assert_eq!(is_hidden, true);
    let status = site.ingestor.get("/api/v1/status").json();
    let keys = status.as_object().unwrap();
    assert!(!keys.contains_key("mappings") && !keys.contains_key("unmapped_topics"), "{status}");
}
