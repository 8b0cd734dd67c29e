use std::fs::{self, OpenOptions};
use std::path::Path;

use super::*;
use crate::base::time::Timestamp;

fn letter(payload: &[u8]) -> NewDeadLetter<'_> {
    NewDeadLetter {
        received_at: Timestamp::from_millis(1_759_667_696_000).unwrap(),
        topic: "telemetry/a",
        stage: Stage::Decode,
        reason: "not valid JSON".to_owned(),
        payload,
        is_unmatched: false,
    }
}

/// An acknowledged reading.
fn row(payload: &[u8]) -> NewDeadLetter<'_> {
    NewDeadLetter { stage: Stage::Database, topic: "", ..letter(payload) }
}

fn open(dir: &Path, max_bytes: u64) -> (DeadLetters, Metrics) {
    let metrics = Metrics::new().unwrap();
    (DeadLetters::open(dir, max_bytes, &metrics).unwrap(), metrics)
}

fn on_disk(dir: &Path) -> u64 {
    fs::read_dir(dir).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum()
}

fn ids(store: &DeadLetters) -> Vec<u64> {
    let mut ids = Vec::new();
    let mut after = None;
    loop {
        let page = store.page(after, 7).unwrap();
        assert!(page.letters.len() <= 7);
        ids.extend(page.letters.iter().map(|letter| letter.id));
        after = page.next;
        if after.is_none() {
            return ids;
        }
    }
}

fn part(range: std::ops::Range<usize>, reason: &str) -> RejectedPart {
    RejectedPart { range, stage: Stage::Decode, reason: reason.to_owned() }
}

fn message<'p>(payload: &'p [u8], parts: &'p [RejectedPart]) -> RejectedMessage<'p> {
    let received_at = letter(b"").received_at;
    RejectedMessage { received_at, topic: "telemetry/a", payload, parts, is_unmatched: false }
}

const MAX: u64 = 1 << 20;

#[test]
fn letters_survive_a_restart_and_their_ids_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), MAX);
    store.append(&[letter(b"\xff\x00"), letter(b"{")]).unwrap();
    drop(store);
    let (store, metrics) = open(dir.path(), MAX);
    assert_eq!(metrics.dead_letters.get(), 2);
    store.append(&[letter(b"["), row(b"{}")]).unwrap();
    assert_eq!(ids(&store), [0, 1, 2, 3]);
}

#[test]
fn ids_are_not_used_again_even_if_every_letter_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..4 {
        let (store, _) = open(dir.path(), MAX);
        store.append(&[letter(b"{"), row(b"{}")]).unwrap();
        let expected = [round * 2, round * 2 + 1];
        assert_eq!(ids(&store), expected);
        assert!(expected.iter().all(|id| store.remove(*id).unwrap()));
        assert_eq!(ids(&store), [0; 0]);
    }
    // The one segment that says which ids were given out.
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn the_store_keeps_its_bound_and_counts_what_it_evicts() {
    let dir = tempfile::tempdir().unwrap();
    let (store, metrics) = open(dir.path(), MAX);
    let payload = vec![b'x'; 20_000];
    for _ in 0..100 {
        store.append(&[letter(&payload), letter(&payload)]).unwrap();
        assert!(on_disk(dir.path()) <= MAX);
    }
    assert!(on_disk(dir.path()) > MAX / 4 * 3);
    assert_eq!(store.lock().fill().bytes, on_disk(dir.path()));
    let kept = u64::try_from(metrics.dead_letters.get()).unwrap();
    assert_eq!(kept + metrics.dead_letters_evicted.get(), 200);
    assert_eq!(ids(&store).len() as u64, kept);
    let kept = ids(&store);
    drop(store);
    assert_eq!(ids(&open(dir.path(), MAX).0), kept);
}

#[test]
fn acknowledged_readings_are_never_evicted_and_fail_where_they_have_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let (store, metrics) = open(dir.path(), MAX);
    let payload = vec![b'x'; 5_000];
    store.append(&vec![letter(&payload); 200]).unwrap();
    let mut rows = 0;
    let error = loop {
        match store.append(&[row(&payload)]) {
            Ok(()) => rows += 1,
            Err(error) => break error,
        }
        assert!(on_disk(dir.path()) <= MAX);
    };
    assert!(error.is_full() && !error.is_disk_full());
    assert!(rows > 100, "{rows}");
    let database = |metrics: &Metrics| {
        let text = metrics.render().unwrap();
        let line = "ingestor_dead_letter_bytes{stage=\"database\"} ";
        text.lines().find_map(|l| l.strip_prefix(line)).unwrap().parse::<u64>().unwrap()
    };
    assert!(database(&metrics) > MAX / 4 * 3 - 20_000);
    // The intake goes on, and pushes out none of them.
    let evicted = metrics.dead_letters_evicted.get();
    for _ in 0..300 {
        store.append(&[letter(&payload)]).unwrap();
        assert!(on_disk(dir.path()) <= MAX);
    }
    assert!(metrics.dead_letters_evicted.get() > evicted);
    let kept = |store: &DeadLetters| {
        let all = store.page(None, 1_000).unwrap().letters;
        all.iter().filter(|letter| letter.stage == "database").map(|l| l.id).collect::<Vec<_>>()
    };
    assert_eq!(kept(&store).len(), rows);
    // Room comes back with what is replayed.
    for id in kept(&store) {
        assert!(store.remove(id).unwrap());
    }
    store.append(&[row(&payload)]).unwrap();
    assert_eq!(kept(&store).len(), 1);
}

#[test]
fn letters_are_paged_removed_for_good_and_given_back_as_they_came() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), MAX);
    let payloads: Vec<Vec<u8>> = (0..10).map(|n| vec![n, 0xff]).collect();
    let letters: Vec<_> = payloads.iter().map(|payload| letter(payload)).collect();
    store.append(&letters).unwrap();
    assert!(store.remove(3).unwrap());
    assert!(!store.remove(3).unwrap());
    let before = on_disk(dir.path());
    drop(store);
    let (store, metrics) = open(dir.path(), MAX);
    assert_eq!(metrics.dead_letters.get(), 9);
    let first = store.page(None, 4).unwrap();
    assert_eq!((first.total, first.next), (9, Some(4)));
    let second = store.page(first.next, 100).unwrap();
    assert_eq!(second.next, None);
    let ids: Vec<u64> = first.letters.iter().chain(&second.letters).map(|l| l.id).collect();
    assert_eq!(ids, [0, 1, 2, 4, 5, 6, 7, 8, 9]);
    assert_eq!(store.get(7).unwrap().unwrap().payload, [7, 0xff]);
    assert_eq!(store.get(3).unwrap(), None);
    assert_eq!(on_disk(dir.path()), before, "to remove a letter takes no space");
}

#[test]
fn a_message_with_many_rejected_parts_is_kept_once_and_each_part_is_a_letter() {
    let dir = tempfile::tempdir().unwrap();
    let (store, metrics) = open(dir.path(), MAX);
    let payload = format!("[{}{{}}]", "1,".repeat(50));
    let mut parts: Vec<_> = (0..50).map(|n| part(1 + 2 * n..2 + 2 * n, "a number")).collect();
    parts.push(part(101..103, "no field"));
    let alone = [part(0..1, "only one")];
    store.append_messages(&[message(b"x", &alone), message(payload.as_bytes(), &parts)]).unwrap();
    assert!(on_disk(dir.path()) < 1_500, "{}", on_disk(dir.path()));
    assert_eq!(ids(&store), (0..52).collect::<Vec<_>>());
    assert!(store.remove(7).unwrap() && !store.remove(7).unwrap());
    drop(store);
    let (store, reopened) = open(dir.path(), MAX);
    assert_eq!((metrics.dead_letters.get(), reopened.dead_letters.get()), (51, 51));
    let last = store.get(51).unwrap().unwrap();
    assert_eq!((last.payload.as_slice(), last.reason.as_str()), (&b"{}"[..], "no field"));
    assert_eq!(store.get(7).unwrap(), None);
    assert_eq!(store.get(8).unwrap().unwrap().payload, b"1");
    let page = store.page(Some(5), 3).unwrap();
    assert_eq!(page.letters.iter().map(|l| l.id).collect::<Vec<_>>(), [6, 8, 9]);
    assert_eq!(page.next, Some(9));
    assert_eq!(ids(&store).len(), 51);
    store.append(&[letter(b"{")]).unwrap();
    assert_eq!(ids(&store).last(), Some(&52));
}

#[test]
fn whatever_a_message_holds_at_most_twenty_times_its_bytes_are_written() {
    let topic = "t".repeat(65_000);
    let nested = format!("{}{}", "[".repeat(120), "]".repeat(120));
    let id = "\u{1}\"".repeat(300);
    let shapes: Vec<(String, Vec<u8>)> = [
        format!("[{}0]", "0,".repeat(32_766)).into_bytes(),
        format!("[{}0]", "0,".repeat(99)).into_bytes(),
        format!("[{}0]", "0,".repeat(9)).into_bytes(),
        format!("[{}{nested}]", format!("{nested},").repeat(250)).into_bytes(),
        format!("[{}{{}}]", "{},".repeat(20_000)).into_bytes(),
        format!("{{{}\"a\":1}}", "\"a\":1,".repeat(9_000)).into_bytes(),
        "[".repeat(65_000).into_bytes(),
        vec![0xff; 65_536],
        b"{".to_vec(),
        format!("[{}]", vec![format!("{{\"device_id\":\"{id}\"}}"); 100].join(",")).into_bytes(),
        (0..100)
            .map(|n| format!(r#"{{"device_id":"a","timestamp":0,"temperature":1.{n}e308,"humidity":1,"battery":1}}"#))
            .collect::<Vec<_>>()
            .join(",")
            .into_bytes(),
    ]
    .into_iter()
    .flat_map(|payload| {
        [&topic, "telemetry/a", &"\u{1}".repeat(300)].map(|topic| (topic.to_owned(), payload.clone()))
    })
    .collect();
    for (topic, payload) in shapes {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(dir.path(), 64 << 20);
        let mut parts = Vec::new();
        crate::telemetry::decode::decode(&payload, |raw, outcome| {
            let Err(rejection) = outcome else { return };
            if parts.len() < 100 {
                let from = raw.as_ptr().addr() - payload.as_ptr().addr();
                parts.push(part(from..from + raw.len(), &rejection.message));
            }
        });
        let all = message(&payload, &parts);
        store.append_messages(&[RejectedMessage { topic: &topic, ..all }]).unwrap();
        let (written, came) = (on_disk(dir.path()), (topic.len() + payload.len()) as u64);
        let start = String::from_utf8_lossy(&payload[..payload.len().min(20)]);
        assert!(written <= 20 * came, "{written} of {came}: {start} on a topic of {}", topic.len());
        let kept = store.page(None, 1_000).unwrap().letters;
        assert_eq!(kept.len(), parts.len());
        assert!(kept.iter().all(|letter| letter.topic.len() <= TOPIC_MAX_BYTES));
    }
}

#[test]
fn a_topic_and_a_reason_are_cut_at_a_character() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), MAX);
    let (topic, reason) = ("é".repeat(200), "é".repeat(600));
    store.append(&[NewDeadLetter { topic: &topic, reason, ..letter(b"x") }]).unwrap();
    let letter = store.get(0).unwrap().unwrap();
    assert_eq!(letter.topic, format!("{}…", "é".repeat(126)));
    assert!(letter.reason.len() <= REASON_MAX_BYTES && letter.reason.ends_with("é…"));
}

#[test]
fn a_torn_last_line_costs_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), MAX);
    store.append(&[letter(b"one"), letter(b"two"), letter(b"three")]).unwrap();
    drop(store);
    let path = dir.path().join("00000000000000000000.log");
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() - 5).unwrap();
    let (store, metrics) = open(dir.path(), MAX);
    assert_eq!(metrics.dead_letters.get(), 2);
    store.append(&[letter(b"four")]).unwrap();
    drop(store);
    assert_eq!(open(dir.path(), MAX).1.dead_letters.get(), 3);
}

/// A line as earlier versions have written it.
fn old_line(json: &str) -> String {
    format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()))
}

fn old_letter(id: u64, stage: &str, payload: &str) -> String {
    old_line(&format!(
        r#"{{"id":{id},"received_at_micros":1759667696000000,"topic":"telemetry/a","stage":"{stage}","reason":"r","payload":"{payload}"}}"#
    ))
}

#[test]
fn stores_of_earlier_versions_are_read_and_acknowledged_readings_in_them_stay() {
    let dir = tempfile::tempdir().unwrap();
    let long = "eHh4".repeat(25_000);
    let first = old_letter(0, "decode", &long) + &old_letter(1, "database", "e30=");
    let second = old_letter(2, "decode", &long) + &old_letter(3, "validate", "e30=");
    let third = old_letter(4, "decode", "e30=") + &old_line(r#"{"removed":3}"#);
    fs::write(dir.path().join("00000000000000000000.log"), first).unwrap();
    fs::write(dir.path().join("00000000000000000002.log"), second).unwrap();
    fs::write(dir.path().join("00000000000000000004.log"), third).unwrap();
    let (store, metrics) = open(dir.path(), MAX);
    assert_eq!(ids(&store), [0, 1, 2, 4]);
    assert_eq!(store.get(1).unwrap().unwrap().payload, b"{}");
    // Fills up: what was acknowledged stays, with the segment that holds it.
    let payload = vec![b'x'; 20_000];
    store.append(&vec![letter(&payload); 100]).unwrap();
    assert!(on_disk(dir.path()) <= MAX);
    assert_eq!(ids(&store)[..3], [0, 1, 5 + metrics.dead_letters_evicted.get() - 2]);
    assert!(store.remove(1).unwrap());
    drop(store);
    let (store, _) = open(dir.path(), MAX);
    store.append(&vec![letter(&payload); 100]).unwrap();
    assert!(!ids(&store).contains(&0));
}

#[test]
fn what_no_mapping_takes_has_a_ring_of_its_own_and_pushes_nothing_else_out() {
    let dir = tempfile::tempdir().unwrap();
    let max_bytes = 1024 * 1024;
    let (store, metrics) = open(dir.path(), max_bytes);
    store.append(&[letter(b"rejected"), row(b"{}")]).unwrap();
    let noise = vec![b'x'; 1_000];
    for _ in 0..1_000 {
        let unmatched = NewDeadLetter { is_unmatched: true, ..letter(&noise) };
        store.append(&[unmatched]).unwrap();
    }
    assert!(metrics.dead_letters_evicted.get() > 0);
    assert!(on_disk(dir.path()) <= max_bytes / 8 + 4_096, "{}", on_disk(dir.path()));
    let first = store.page(None, 2).unwrap().letters;
    let payloads: Vec<_> = first.iter().map(|letter| letter.payload.as_slice()).collect();
    assert!(payloads.contains(&b"rejected".as_slice()) && payloads.contains(&b"{}".as_slice()));
    let before = store.page(None, 1).unwrap().total;
    drop(store);
    let (store, _) = open(dir.path(), max_bytes);
    assert_eq!(store.page(None, 1).unwrap().total, before);
}

#[tokio::test]
async fn a_removal_that_may_not_last_is_told_once_and_nothing_is_removed_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, metrics) = open(dir.path(), MAX);
    store.append(&[letter(b"one"), row(b"{}")]).unwrap();
    let mut failed = std::pin::pin!(store.failed());
    assert!(store.remove(0).unwrap());
    let now = std::future::poll_fn(|context| std::task::Poll::Ready(failed.as_mut().poll(context)));
    assert!(now.await.is_pending(), "nothing has failed yet");
    store.lock().segments.values_mut().for_each(segment::Segment::refuse_writes);
    let uncertain = store.remove(1).unwrap_err().to_string();
    assert_eq!(failed.await, uncertain);
    let refused = store.remove(1).unwrap_err().to_string();
    assert!(refused.contains("this file could not be written before"), "{refused}");
    assert_eq!(store.failed().await, uncertain);
    assert_eq!(metrics.dead_letters.get(), 1);
    assert_eq!(ids(&store), [1]);
}

#[tokio::test]
async fn a_letter_that_stays_because_of_an_earlier_fault_is_no_reason_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), MAX);
    store.append(&[letter(b"one")]).unwrap();
    for segment in store.lock().segments.values_mut() {
        segment.has_failed = true;
    }
    store.remove(0).unwrap_err();
    let mut failed = std::pin::pin!(store.failed());
    let now = std::future::poll_fn(|context| std::task::Poll::Ready(failed.as_mut().poll(context)));
    assert!(now.await.is_pending());
    // What was stored elsewhere since is another matter.
    store.append(&[letter(b"two")]).unwrap();
    store.lock().segments.values_mut().for_each(segment::Segment::refuse_writes);
    let uncertain = store.remove(1).unwrap_err().to_string();
    assert_eq!(failed.await, uncertain);
    assert_eq!(ids(&store), [0, 1]);
}
