//! The operator page, in a real browser.

use serde_json::Value;

use crate::harness::{
    Browser, Ingestor, Load, Mosquitto, Postgres, Publisher, Service, eventually, ports, skip,
    skip_without,
};

mod mappings;

const TOKEN: &str = "correct-horse-battery";
const WIDE: (u32, u32) = (1280, 900);

/// A name that is nothing but text.
const MARKUP: &str =
    "<script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\">";

struct Site {
    postgres: Postgres,
    broker: Mosquitto,
    service: Service,
    ingestor: Ingestor,
    url: String,
}

impl Site {
    /// `None` where there is no browser.
    fn start() -> Option<Self> {
        Self::start_with(|service| service)
    }

    /// As [`Self::start`], with further settings.
    fn start_with(set_up: impl FnOnce(Service) -> Service) -> Option<Self> {
        if !Browser::is_there() {
            if is_ubuntu() {
                skip("Ubuntu has no package of Chromium");
            } else {
                skip_without("chromedriver is needed: apt-get install chromium chromium-driver");
            }
            return None;
        }
        let postgres = Postgres::start_durable();
        let broker = Mosquitto::start();
        let address = format!("127.0.0.1:{}", ports::free());
        let service = Service::new(&postgres.url(), broker.port)
            .set("HTTP_ADDR", &address)
            .set("ADMIN_TOKEN", TOKEN);
        let service = set_up(service);
        let mut ingestor = service.start();
        ingestor.await_ready();
        Some(Self { postgres, broker, service, ingestor, url: format!("http://{address}/") })
    }

    /// The page in a new browser.
    fn browser(&self, (width, height): (u32, u32)) -> Browser {
        let browser = Browser::start(width, height);
        browser.open(&self.url);
        browser
    }

    /// Waits until the table has these rows.
    fn publish_now(&self, device: &str, readings: usize) {
        let mut publisher = Publisher::connect(self.broker.port);
        let before = self.postgres.count();
        // Read once: two readings of one device at one time are one reading.
        let now = chrono::Utc::now().timestamp_millis();
        for millis in (0..i64::try_from(readings).unwrap()).map(|number| now - number) {
            publisher.publish("telemetry/page", payload(device, millis, 21.5));
        }
        publisher.finish();
        self.postgres.await_count(before + readings);
    }
}

fn payload(device: &str, millis: i64, temperature: f64) -> String {
    serde_json::json!({
        "device_id": device, "timestamp": millis, "temperature": temperature,
        "humidity": 50.0, "battery": 90.0,
    })
    .to_string()
}

/// The state of a light, in its word and in its colour.
#[track_caller]
fn await_light(browser: &Browser, name: &str, state: &str, level: &str) {
    browser.await_text(&format!("#{name}[data-level={level}] .state"), |text| text == state);
}

/// Of a chart, its data but for the time.
fn chart(browser: &Browser, name: &str) -> Vec<Vec<Option<f64>>> {
    let data = browser.run(&format!("return document.querySelector('#chart-{name}').chart.data"));
    let column = |column: &Value| column.as_array().unwrap().iter().map(Value::as_f64).collect();
    data.as_array().unwrap().iter().skip(1).map(column).collect()
}

#[track_caller]
fn confirm(browser: &Browser, told: &str) {
    browser.await_text("#confirm[open]", |text| text.contains(told));
    browser.click("#confirm-yes");
}

#[track_caller]
fn unlock(browser: &Browser) {
    browser.click("#admin-unlock");
    browser.write("#token-input", TOKEN);
    browser.click("#token .primary");
    browser.await_text("#flusher-state", |text| !text.is_empty());
}

#[test]
fn all_is_well_without_a_complaint_or_a_question_to_anybody_else() {
    let Some(site) = Site::start() else { return };
    site.publish_now("sensor-1", 20);
    site.publish_now(MARKUP, 5);
    let browser = site.browser(WIDE);
    await_light(&browser, "broker", "Connected", "ok");
    await_light(&browser, "log", "Safe on disk", "ok");
    await_light(&browser, "database", "Storing", "ok");
    browser.await_text("#devices-count", |text| text == "2");
    let points = eventually("the charts show what was before the page", || {
        let columns = chart(&browser, "flow");
        columns[0].iter().flatten().any(|rate| *rate > 0.0).then_some(columns)
    });
    assert!(points[1].iter().flatten().any(|rate| *rate > 0.0), "{points:?}");

    // The last one published comes first, and its name is text.
    browser.await_text("#devices li:first-child .name", |text| text == MARKUP);
    browser.write("#devices-search", "SENSOR");
    browser.await_text("#devices-count", |text| text == "1");
    browser.await_text("#devices li:first-child .name", |text| text == "sensor-1");
    browser.run("const s = document.querySelector('#devices-search'); s.value = 'img'; s.dispatchEvent(new Event('input'))");
    browser.await_text("#devices li:first-child .name", |text| text == MARKUP);
    browser.click("#devices li:first-child button");
    browser.await_text("#device-title", |text| text == MARKUP);
    browser.await_text("#device-count", |text| text == "5 readings");
    let shown = browser.run("return document.querySelector('#device-chart').chart.data[1]");
    assert_eq!(shown, serde_json::json!([21.5, 21.5, 21.5, 21.5, 21.5]));
    browser.click("#device .close");
    let title = browser.run("return document.title");
    assert!(title.as_str().unwrap().starts_with('✓'), "{title}");
    assert_eq!(browser.run("return document.querySelectorAll('main img, main script').length"), 0);

    assert_eq!(browser.complaints(), [""; 0]);
    let requests = browser.requests_of(&site.url);
    assert!(requests.len() > 10, "{requests:?}");
    let foreign: Vec<_> = requests.iter().filter(|url| !url.starts_with(&site.url)).collect();
    assert!(foreign.is_empty(), "{foreign:?}");

    let answer = site.ingestor.get("/");
    let head = answer.head.to_lowercase();
    assert!(head.contains("content-type: text/html; charset=utf-8"), "{head}");
    assert!(
        head.contains("content-security-policy: default-src 'none'; script-src 'self';"),
        "{head}"
    );
    assert!(!head.contains("unsafe"), "{head}");
    assert_eq!(site.ingestor.get("/assets/nothing.js").status, 404);
}

#[test]
fn lights_sentence_and_charts_follow_the_database_and_the_ingestor() {
    let Some(mut site) = Site::start() else { return };
    let browser = site.browser(WIDE);
    let load = Load::start(site.broker.port, 300);
    browser.await_text("#summary", |text| text.contains("readings/s come in"));
    await_light(&browser, "database", "Storing", "ok");

    site.postgres.kill();
    await_light(&browser, "database", "Unreachable", "critical");
    await_light(&browser, "log", "Safe on disk", "ok");
    await_light(&browser, "broker", "Connected", "ok");
    let is_told = |text: &str| {
        text.starts_with("Database unreachable for ")
            && text.contains(" readings are safe in the log, room for ")
    };
    browser.await_text("#now[data-level=warning] #summary", is_told);
    let highest = |browser: &Browser| {
        let pending = chart(browser, "pending").remove(0);
        pending.into_iter().flatten().fold(0.0, f64::max)
    };
    eventually("what waits rises in the chart", || (highest(&browser) > 500.0).then_some(()));

    site.postgres.launch();
    await_light(&browser, "database", "Storing", "ok");
    browser.await_text("#now[data-level=ok] #summary", |text| text.contains("readings/s come in"));
    eventually("what waits drains in the chart", || {
        let last = chart(&browser, "pending").remove(0).pop().flatten();
        (last? < 300.0 && highest(&browser) > 500.0).then_some(())
    });
    load.stop();

    // It is gone, says the page, and says so no more when it is back.
    site.ingestor.stop();
    browser.await_text("#now[data-level=critical] #summary", |text| {
        text.starts_with("The ingestor has not answered for ")
    });
    await_light(&browser, "database", "Unknown", "unknown");
    let complaints = browser.complaints();
    let is_silence = |text: &String| text.contains("net::ERR_") || text.contains("503");
    assert!(complaints.iter().all(is_silence), "{complaints:?}");
    site.ingestor = site.service.start();
    await_light(&browser, "database", "Storing", "ok");
    let title = browser.run("return document.title");
    assert!(!title.as_str().unwrap().contains("answered"), "{title}");
}

#[test]
fn devices_and_their_readings_stay_in_an_outage_and_it_is_told_what_may_be_missing() {
    let Some(mut site) = Site::start() else { return };
    site.publish_now("sensor-1", 3);
    let browser = site.browser(WIDE);
    await_light(&browser, "database", "Storing", "ok");
    browser.await_text("#devices-count", |text| text == "1");
    site.postgres.kill();
    await_light(&browser, "database", "Unreachable", "critical");
    let now = chrono::Utc::now().timestamp_millis();
    let mut publisher = Publisher::connect(site.broker.port);
    for ago in [2_000, 1_000] {
        publisher.publish("telemetry/new", payload("sensor-2", now - ago, 30.25));
    }
    publisher.finish();
    site.ingestor.await_metric("ingestor_valid_messages_total", 5);
    browser.await_text("#devices-count", |text| text == "2");
    browser.await_text("#devices li:first-child .name", |text| text == "sensor-2");
    browser.await_text("#devices-note", |text| text.starts_with("The database does not answer: "));
    browser.click("#devices li:first-child button");
    browser.await_text("#device-count", |text| text == "2 readings");
    let shown = browser.run("return document.querySelector('#device-chart').chart.data[1]");
    assert_eq!(shown, serde_json::json!([30.25, 30.25]));
    browser.await_text("#device-note", |text| text.contains("what is in the ingestor's log"));
    browser.click("#device .close");
    site.postgres.launch();
    await_light(&browser, "database", "Storing", "ok");
    browser.await_text("#devices-note", str::is_empty);
}

#[test]
fn dead_letters_are_replayed_and_deleted_and_writing_is_paused_through_the_page() {
    let Some(mut site) = Site::start() else { return };
    let mut publisher = Publisher::connect(site.broker.port);
    let now = chrono::Utc::now().timestamp_millis();
    publisher.publish_one("telemetry/hot", payload("hot", now, 150.0));
    publisher.publish_one("telemetry/odd", MARKUP);
    site.ingestor.await_metric("ingestor_dead_letters", 2);
    // With a rule that lets the first one pass.
    site.ingestor.stop();
    site.service = site.service.set("VALIDATE_TEMPERATURE_MAX", 200);
    site.ingestor = site.service.start();
    site.ingestor.await_ready();

    let browser = site.browser(WIDE);
    unlock(&browser);
    assert_eq!(browser.run("return localStorage.length + document.cookie.length"), 0);
    browser.await_text("#letters-count", |text| text == "2");
    browser.await_text("#letters li:nth-child(2) .payload", |text| text == MARKUP);
    browser.await_text("#letters li:first-child .reason", |text| text.contains("150"));

    browser.click("#letters li:first-child .choices button:first-child");
    confirm(&browser, "its readings go into the log");
    browser.await_text("#admin-note", |text| text.ends_with("is replayed: 1 reading in the log."));
    site.postgres.await_count(1);
    browser.await_text("#letters-count", |text| text == "1");
    // The other one is still bad, and goes only if that is confirmed.
    browser.click("#letters-replay");
    confirm(&browser, "If it is still bad, it stays");
    browser.await_text("#admin-note", |text| text == "0 dead letters replayed, 1 still bad.");
    browser.click("#letters li:first-child button.danger");
    browser.await_text("#confirm[open]", |text| text.contains("gone for good"));
    browser.click("#confirm .cancel");
    assert_eq!(site.ingestor.metric("ingestor_dead_letters"), 1);
    browser.click("#letters li:first-child button.danger");
    confirm(&browser, "gone for good");
    browser.await_text("#letters-count", |text| text == "0");
    assert_eq!(site.ingestor.metric("ingestor_dead_letters"), 0);

    browser.click("#flusher-switch");
    confirm(&browser, "Readings go on coming in and are safe in the log");
    await_light(&browser, "database", "Paused", "warning");
    publisher.publish_one("telemetry/hot", payload("hot", now + 1, 20.0));
    browser.await_text("#wal-state", |text| text.starts_with("1 reading "));
    browser.click("#records summary");
    browser.await_text("#records li", |text| text.contains(" · hot · "));
    browser.click("#flusher-switch");
    confirm(&browser, "goes on with what waits in the log: 1 reading");
    await_light(&browser, "database", "Storing", "ok");
    site.postgres.await_count(2);

    assert_eq!(browser.complaints(), [""; 0]);
    // A token that is wrong is told, and opens nothing.
    browser.click("#admin-lock");
    browser.click("#admin-unlock");
    browser.write("#token-input", "wrong");
    browser.click("#token .primary");
    browser.await_text("#token-note", |text| text == "That is not the token of this service.");
    assert_eq!(browser.run("return sessionStorage.length"), 0);
}

#[test]
fn a_phone_shows_the_lights_at_once_and_scrolls_in_one_direction() {
    let Some(site) = Site::start() else { return };
    site.publish_now(&"W".repeat(128), 3);
    let mut publisher = Publisher::connect(site.broker.port);
    publisher.publish_one(&format!("telemetry/{}", "t".repeat(300)), "x".repeat(5_000));
    let browser = site.browser((360, 740));
    browser.await_text("#devices-count", |text| text == "1");
    unlock(&browser);
    browser.await_text("#letters-count", |text| text == "1");
    // `innerWidth` would not do: a phone shows all of what is too wide, smaller.
    let width = "return document.scrollingElement.scrollWidth";
    assert_eq!(browser.run(width), 360);
    let lights_end = browser
        .run("return document.querySelector('#database').getBoundingClientRect().bottom + scrollY");
    assert!(lights_end.as_f64() < Some(740.0), "{lights_end}");
    browser.click("#devices button");
    browser.await_text("#device-count", |text| text == "3 readings");
    let dialog = browser.run(
        "const d = document.querySelector('#device'); const r = d.getBoundingClientRect(); \
         return r.left >= 0 && r.right <= 360 && d.scrollWidth <= d.clientWidth",
    );
    assert_eq!(dialog, true);
    assert_eq!(browser.run(width), 360);
    // By keyboard too: Escape closes it, and the focus is where it was.
    browser.write("#device-range", "\u{e00c}");
    browser.await_text("#devices button:focus .name", |text| text.starts_with('W'));
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_page_that_wants_a_token_asks_for_it_once_a_session_and_shows_nothing_before() {
    let read = "battery-staple";
    let Some(site) = Site::start_with(|service| service.set("READ_TOKEN", read)) else { return };
    site.publish_now("sensor-1", 3);
    let browser = site.browser(WIDE);
    let is_asked = "#reader[open] #reader-title";
    let unlock = |token: &str| {
        browser.await_text(is_asked, |text| text == "Token needed");
        browser.write("#reader-input", token);
        browser.click("#reader .primary");
    };
    unlock("wrong");
    browser.await_text("#reader-note", |text| text == "That is not a token of this service.");
    assert_eq!(browser.text("#devices-count").unwrap_or_default(), "");
    assert_eq!(browser.run("return sessionStorage.length"), 0);
    unlock(read);
    await_light(&browser, "broker", "Connected", "ok");
    browser.await_text("#devices-count", |text| text == "1");
    eventually("it is asked no more", || browser.text(is_asked).is_none().then_some(()));

    // For as long as the tab is there, and not longer.
    browser.open(&site.url);
    await_light(&browser, "database", "Storing", "ok");
    assert_eq!(browser.text(is_asked), None);
    assert_eq!(browser.run("return localStorage.length + document.cookie.length"), 0);
    // A file takes the token along, which a link could not.
    browser.click("#devices button");
    browser.await_text("#device-count", |text| text == "3 readings");
    browser.run(
        "window.saved = null; const make = URL.createObjectURL; \
         URL.createObjectURL = (blob) => { blob.text().then((text) => (window.saved = text)); return make(blob); }",
    );
    browser.click("#device-csv");
    let csv = eventually("the file is there", || {
        browser.run("return window.saved").as_str().map(str::to_owned)
    });
    assert!(csv.starts_with("device_id,timestamp,") && csv.lines().count() == 4, "{csv}");
    browser.click("#device .close");
    browser.run("sessionStorage.clear()");
    browser.open(&site.url);
    // The admin token is one, too.
    unlock(TOKEN);
    await_light(&browser, "broker", "Connected", "ok");
    let is_refusal = |text: &String| text.contains("401");
    let complaints = browser.complaints();
    assert!(complaints.iter().all(is_refusal), "{complaints:?}");
}

/// Which has no package of a browser.
fn is_ubuntu() -> bool {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    release.lines().any(|line| line == "ID=ubuntu")
}

#[test]
fn the_table_of_a_mapping_can_be_chosen_and_each_of_its_columns_has_a_chart() {
    let mapping = r#"
        [[default.mapping]]
        name   = "meter"
        topic  = "meters/{device}"
        device = "{device}"
        time   = { path = "at", format = "ms" }
        table  = "power"
        fields = { power = { unit = "W" }, on = { type = "bool" }, label = { type = "text" }, idle = {} }
    "#;
    let site = Site::start_with(|service| {
        let file = service.dir().join("Mappings.toml");
        std::fs::write(&file, mapping).unwrap();
        service.set("ROCKET_CONFIG", file.display())
    });
    let Some(site) = site else { return };
    site.publish_now("sensor-1", 3);
    let now = chrono::Utc::now().timestamp_millis();
    let mut publisher = Publisher::connect(site.broker.port);
    for (ago, message) in [
        (2_000, serde_json::json!({"power": 1_500.25, "on": true})),
        (1_000, serde_json::json!({"on": false, "label": "off"})),
        (0, serde_json::json!({"power": 2, "label": MARKUP})),
    ] {
        let mut message = message;
        message["at"] = (now - ago).into();
        publisher.publish("meters/m1", message.to_string());
    }
    publisher.finish();
    eventually("the rows are there", || {
        let rows = site.ingestor.get("/api/v1/telemetry?table=power").json();
        (rows["total"] == 3).then_some(())
    });
    let browser = site.browser(WIDE);
    browser.await_text("#devices li:first-child .name", |text| text == "sensor-1");
    let names = browser
        .run("return [...document.querySelector('#devices-table').options].map((o) => o.text)");
    assert_eq!(names, serde_json::json!(["telemetry", "power"]));
    browser.run("const t = document.querySelector('#devices-table'); t.value = 'power'; t.dispatchEvent(new Event('change'))");
    browser.await_text("#devices li:first-child .name", |text| text == "m1");
    browser.await_text("#devices-count", |text| text == "1");
    let figures =
        "return [...document.querySelectorAll('#devices .figure')].map((f) => f.textContent)";
    let shown = serde_json::json!([format!("label\u{a0}{MARKUP}"), "power\u{a0}2\u{a0}W", ""]);
    assert_eq!(browser.run(figures), shown);
    browser.click("#devices li:first-child button");
    browser.await_text("#device-count", |text| text == "3 readings");
    let drawn = "return [...document.querySelectorAll('#device-charts figure')].map(
        (f) => [f.querySelector('h2').textContent, f.chart.data[1], f.querySelector('.legend b').textContent])";
    let expected =
        serde_json::json!([["on", [1, 0], "false"], ["power", [1_500.25, 2], "2\u{a0}W"],]);
    eventually("there is a chart for each column with numbers", || {
        (browser.run(drawn) == expected).then_some(())
    });
    browser.click("#device .close");
    // A dialog tells that it was closed a moment afterwards.
    eventually("no chart is left", || {
        let left = browser.run("return document.querySelectorAll('#device-charts figure').length");
        (left == 0).then_some(())
    });
    browser.run("const t = document.querySelector('#devices-table'); t.value = 'telemetry'; t.dispatchEvent(new Event('change'))");
    browser.await_text("#devices li:first-child .name", |text| text == "sensor-1");
    assert_eq!(browser.run("return document.querySelectorAll('main img, main script').length"), 0);
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn devices_that_are_silent_are_listed_with_how_long_as_text() {
    let Some(site) = Site::start_with(|service| service.set("SILENT_AFTER_SECS", 1)) else {
        return;
    };
    let browser = site.browser(WIDE);
    browser.await_text("#log .state", |text| text == "Safe on disk");
    assert_eq!(browser.run("return document.querySelector('#silent-part').hidden"), true);
    site.publish_now(MARKUP, 1);
    browser.await_text("#silent-part summary", |text| text == "1 silent device");
    browser.await_text("#silent li", |text| {
        text.starts_with(MARKUP) && text.contains(" · nothing for ")
    });
    assert_ne!(browser.run("return document.title"), "broken");
}
