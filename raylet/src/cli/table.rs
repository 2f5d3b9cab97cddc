//! Rows for people: aligned columns under a head, and what a cell says.
//!
//! The one thing to know: rows are JSON values, so a column is a field's name and the same names work
//! for `--filter`. This file must not ask anybody.

use super::{age, bytes};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

/// The rows' fields of these names as a table, the head in capitals.
pub(super) fn table(columns: &[&str], rows: &[Value]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(columns.iter().map(|column| head(column)));
    for row in rows {
        table.add_row(columns.iter().map(|column| cell(column, &row[*column])));
    }
    for (index, column) in columns.iter().enumerate() {
        let column = (table.column_mut(index), rows.iter().any(|row| is_number(column, &row[*column])));
        if let (Some(column), is_number) = column {
            column.set_padding((0, 2));
            column.set_cell_alignment(if is_number { CellAlignment::Right } else { CellAlignment::Left });
        }
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// `is_detached` is DETACHED, `age_ms` AGE, `restart_count` RESTARTS.
fn head(column: &str) -> String {
    let name = column.strip_prefix("is_").unwrap_or(column);
    let name = name.strip_suffix("_ms").unwrap_or(name);
    let name = name.strip_suffix("_count").map_or_else(|| name.to_owned(), |name| format!("{name}s"));
    name.replace('_', " ").to_uppercase()
}

fn is_number(column: &str, value: &Value) -> bool {
    value.is_number() && column != "job"
}

/// What a cell says.
fn cell(column: &str, value: &Value) -> String {
    match (column, value.as_u64()) {
        ("bytes", Some(size)) => bytes::show(size),
        ("age_ms", Some(age_ms)) => age(age_ms),
        _ => show(value),
    }
}

/// A value in words: nothing is `-`, amounts are `CPU 1, tape 2`.
fn show(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(flag) => if *flag { "yes" } else { "no" }.to_owned(),
        Value::Number(number) => number_text(number),
        Value::String(text) => printable(text),
        Value::Array(values) => joined(values.iter().map(show)),
        Value::Object(fields) => joined(fields.iter().map(|(name, value)| amount(name, value))),
    }
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { "-".to_owned() } else { parts.join(", ") }
}

fn amount(name: &str, value: &Value) -> String {
    match (name, value.as_f64()) {
        ("memory", Some(size)) => format!("memory {}", bytes::show(size as u64)),
        _ => format!("{} {}", printable(name), show(value)),
    }
}

/// `1` rather than `1.0`.
fn number_text(number: &serde_json::Number) -> String {
    number.as_f64().filter(|_| number.is_f64()).map_or_else(|| number.to_string(), |value| value.to_string())
}

/// Names are users' texts: what would move the cursor or break the line is shown as its escape.
pub(super) fn printable(text: &str) -> String {
    let show = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(show).collect()
}

/// A value as `--filter` compares it.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) => number_text(number),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_stand_under_their_heads() {
        let rows = [
            json!({"worker": 3, "name": "a\u{1b}[2J", "demand": {"CPU": 1.0, "memory": 2048.0}, "age_ms": 1500}),
            json!({"worker": 12, "name": null, "demand": {}, "age_ms": 90_000}),
        ];
        let found = table(&["worker", "name", "demand", "age_ms"], &rows);
        let expected = "WORKER  NAME          DEMAND                      AGE\n     \
                        3  a\\u{1b}[2J   CPU 1, memory 2.0 KiB     1.5 s\n    \
                        12  -             -                       1.5 min\n";
        let squeezed = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        assert_eq!(squeezed(&found), squeezed(expected), "{found}");
        assert_eq!(found.lines().count(), 3, "{found}");
        assert!(found.starts_with("WORKER"), "{found}");
    }

    #[test]
    fn heads_are_words() {
        let check = |column, expected| assert_eq!(head(column), expected);
        check("is_blocked", "BLOCKED");
        check("restart_count", "RESTARTS");
        check("caller_pid", "CALLER PID");
        check("age_ms", "AGE");
    }

    #[test]
    fn filters_compare_what_json_shows() {
        let check = |value: Value, expected| assert_eq!(plain(&value), expected);
        check(json!("RUNNING"), "RUNNING");
        check(json!(7), "7");
        check(json!(1.0), "1");
        check(json!(true), "true");
        check(Value::Null, "");
    }
}
