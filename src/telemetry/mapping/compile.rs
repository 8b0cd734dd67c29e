//! From a table in the file to a mapping, or to all that is wrong with it.

use rocket::figment::value::{Dict, Value};

use super::compiled::{Mapping, One, Piece, Retained, SILENT_AFTER_MAX_SECS, Template, Time};
use super::field::{Field, MOST_PATHS, is_name, name_fault};
use super::format::{Format, MANY};
use super::keys::{Keys, literals, texts};
use super::parts::{MOST_ENTRIES, MOST_TOPICS, Reader, too_many};
use super::path::{Container, Path, parse_each};
use super::shape::{BUILT_IN_TABLE, DEVICES_TABLE, MOST_COLUMNS, OLDER_PARTITION, SilentAfter};
use super::template::is_reserved;
use super::topic::{Except, Filter};
use super::tree::Tree;
use super::value::Literal;

/// Compiles the table of a mapping, which is the number `at` of the file, from 1. What is wrong with it
/// goes to `mistakes`; the mapping is then good for checking the others, not for messages.
pub(super) fn compile(table: &Dict, at: usize, mistakes: &mut Vec<String>) -> Mapping {
    let name = match table.get("name") {
        Some(Value::String(_, name)) => name.clone(),
        _ => String::new(),
    };
    let place =
        if name.is_empty() { format!("mapping {at}") } else { format!("mapping \"{name}\"") };
    let mut keys = Keys::new(table, place.clone(), mistakes);
    check_name(&mut keys);
    let filters = read_filters(&mut keys);
    let except = read_except(&mut keys);
    let format = Format::read(&mut keys);
    let each = read_each(&mut keys, &format);
    let mut tree = Tree::new(each.as_ref());
    let mut reader =
        Reader { filters: &filters, format: &format, each: each.as_ref(), tree: &mut tree };
    let (when, has) = reader.conditions(&mut keys);
    let device = reader.device(&mut keys);
    let time = reader.time(&mut keys);
    let one = reader.one(&mut keys);
    let extra = reader.extra(&mut keys, one.is_some());
    let missing = read_missing(&mut keys);
    let table_name = read_table(&mut keys);
    let retained = match keys.text("retained") {
        Some("store") => Retained::Store,
        Some("skip") => Retained::Skip,
        Some(other) => {
            keys.mistake(format_args!("retained: expected store or skip, found \"{other}\""));
            Retained::Skip
        }
        None if matches!(time, Time::Received) => Retained::Skip,
        None => Retained::StoreTimed,
    };
    let silent_after = read_silent_after(&mut keys);
    let fields = keys.value("fields");
    let by_name = one.is_some() || format.is_text();
    let plain = fields.map(|fields| plain_fields(&mut keys, fields)).unwrap_or_default();
    if fields.is_none() && extra.is_none() {
        keys.mistake("fields: is missing");
    } else if fields.is_none() && one.is_none() && format.is_text() {
        keys.mistake(
            "extra: in a text it is what no column takes, so `field` has to say what it is called",
        );
    }
    keys.finish();
    let mut fields = match fields {
        Some(Value::Dict(_, dict)) => read_fields(dict, by_name, &place, mistakes),
        _ => plain,
    };
    if one.is_none() && format.is_text() && fields.len() > 1 {
        mistakes.push(format!(
            "{place}: field: is missing: a text is one value, and it has to be said which of the fields it is"
        ));
    }
    // A path is followed only where the fields are not found by their name.
    if !by_name {
        for field in &mut fields {
            field.slots = field.paths.iter().map(|path| tree.slot(path)).collect();
        }
    }
    let one = one.or_else(|| format.is_text().then(|| only_field(&fields, &mut tree)).flatten());
    Mapping {
        name,
        filters,
        except,
        format,
        each,
        tree,
        when,
        has,
        device,
        time,
        one,
        fields,
        extra,
        missing,
        table: table_name,
        retained,
        silent_after,
    }
}

fn check_name(keys: &mut Keys<'_, '_>) {
    match keys.text("name") {
        None if keys.value("name").is_none() => keys.mistake("name: is missing"),
        None => {}
        Some(name) => {
            let mut bytes = name.bytes();
            let is_good = bytes.next().is_some_and(|first| first.is_ascii_lowercase())
                && bytes
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b))
                && name.len() <= 63;
            if !is_good {
                keys.mistake(
                    "name: a mapping is called [a-z][a-z0-9_-]*, with at most 63 characters",
                );
            }
        }
    }
}

fn read_filters(keys: &mut Keys<'_, '_>) -> Vec<Filter> {
    let Some(texts) = keys.texts("topic") else {
        if keys.value("topic").is_none() {
            keys.mistake("topic: is missing");
        }
        return Vec::new();
    };
    too_many(keys, "topic", texts.len(), MOST_TOPICS);
    let mut filters = Vec::new();
    for text in texts {
        match Filter::parse(text) {
            Ok(filter) => {
                if let Some(name) = filter.captures().find(|name| is_reserved(name)) {
                    keys.mistake(format_args!(
                        "topic: `{text}`: `{{{name}}}` is where an element of `each` stands; call the level something else"
                    ));
                }
                filters.push(filter);
            }
            Err(what) => keys.mistake(format_args!("topic: {what}")),
        }
    }
    filters
}

fn read_except(keys: &mut Keys<'_, '_>) -> Vec<Except> {
    let texts = keys.texts("except").unwrap_or_default();
    too_many(keys, "except", texts.len(), MOST_ENTRIES);
    let mut except = Vec::new();
    for text in texts {
        match Except::parse(text) {
            Ok(filter) => except.push(filter),
            Err(what) => keys.mistake(format_args!("except: {what}")),
        }
    }
    except
}

fn read_each(keys: &mut Keys<'_, '_>, format: &Format) -> Option<(Path, Container)> {
    let said = keys.text("each");
    if let Some(elements) = format.elements() {
        if said.is_some_and(|each| each != MANY) {
            keys.mistake(format_args!("each: the elements of this format are its {elements}"));
        }
        return parse_each(MANY).ok();
    }
    let text = said?;
    if format.is_text() {
        keys.mistake("each: a text is one value and has no elements");
        return None;
    }
    parse_each(text).map_err(|what| keys.mistake(format_args!("each: {what}"))).ok()
}

fn read_missing(keys: &mut Keys<'_, '_>) -> Vec<Literal> {
    let Some(value) = keys.value("missing") else { return Vec::new() };
    let Some(words) = literals(value) else {
        return keys
            .unexpected("missing", "a list of words and numbers", value)
            .unwrap_or_default();
    };
    too_many(keys, "missing", words.len(), MOST_ENTRIES);
    words
}

fn read_silent_after(keys: &mut Keys<'_, '_>) -> SilentAfter {
    let seconds = keys.whole("silent_after", 1, SILENT_AFTER_MAX_SECS as usize);
    let seconds = seconds.and_then(|seconds| u32::try_from(seconds).ok());
    seconds.map_or(SilentAfter::OfAll, SilentAfter::Seconds)
}

fn read_table(keys: &mut Keys<'_, '_>) -> String {
    let Some(name) = keys.text("table") else { return BUILT_IN_TABLE.to_owned() };
    let is_partition = name.strip_prefix("telemetry_").is_some_and(|rest| {
        rest.strip_prefix('p')
            .unwrap_or(rest)
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'_')
    });
    if !is_name(name) {
        keys.mistake("table: a table is called [a-z][a-z0-9_]*, with at most 63 characters");
    } else if name.starts_with("pg_")
        || is_partition
        || [DEVICES_TABLE, OLDER_PARTITION].contains(&name)
    {
        keys.mistake(format_args!(
            "table: \"{name}\" is a name of the service's or of PostgreSQL's own"
        ));
    }
    name.to_owned()
}

/// A list of names, each of a plain float.
fn plain_fields(keys: &mut Keys<'_, '_>, fields: &Value) -> Vec<Field> {
    let names = match fields {
        Value::Dict(_, dict) => {
            if dict.is_empty() {
                keys.mistake("fields: there are none");
            }
            return Vec::new();
        }
        Value::Array(..) => texts(fields),
        _ => None,
    };
    let Some(names) = names else {
        let expected = "a table of columns and their options, or a list of names";
        return keys.unexpected("fields", expected, fields).unwrap_or_default();
    };
    if names.is_empty() {
        keys.mistake("fields: there are none");
    }
    for (at, name) in names.iter().enumerate() {
        if let Some(fault) = name_fault(name) {
            keys.mistake(format_args!("field \"{name}\": {fault}"));
        }
        if names[..at].contains(name) {
            keys.mistake(format_args!("field \"{name}\": stands there twice"));
        }
    }
    names.into_iter().map(Field::plain).collect()
}

fn read_fields(dict: &Dict, by_name: bool, place: &str, mistakes: &mut Vec<String>) -> Vec<Field> {
    let empty = Dict::new();
    let mut fields = Vec::new();
    for (name, options) in dict {
        let place = format!("{place}, field \"{name}\"");
        if let Some(fault) = name_fault(name) {
            mistakes.push(format!("{place}: {fault}"));
        }
        let options = if let Value::Dict(_, options) = options {
            options
        } else {
            mistakes
                .push(format!("{place}: expected options in braces, such as {{ unit = \"W\" }}"));
            &empty
        };
        fields.push(Field::read(name, by_name, Keys::new(options, place, mistakes)));
    }
    fields
}

/// What a text is if there is one field alone.
fn only_field(fields: &[Field], tree: &mut Tree) -> Option<One> {
    let [field] = fields else { return None };
    let name = field.paths.first()?.to_string();
    let slot = tree.slot(&Path::parse("$").ok()?);
    let name = Template { pieces: vec![Piece::Text(name.clone())], text: name };
    Some(One { name, slot, path: None })
}

const _: () = assert!(MOST_PATHS * (MOST_COLUMNS + 2) + 2 * MOST_ENTRIES < u16::MAX as usize);
