//! The JSON schemas of what people script against.

use crate::ndjson::RunEvent;
use serde_json::Value;
use shmcheck_protocol::Report;

/// The schema of a report, draft 2020-12.
pub fn report() -> Value {
    titled(schemars::schema_for!(Report), "shmcheck report")
}

/// The schema of one line of the event stream, draft 2020-12.
pub fn events() -> Value {
    titled(schemars::schema_for!(RunEvent), "shmcheck event")
}

fn titled(mut schema: schemars::Schema, title: &str) -> Value {
    schema.insert("title".to_owned(), Value::String(title.to_owned()));
    schema.to_value()
}
