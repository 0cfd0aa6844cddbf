//! What is said of each node: a line when it is done, or one JSON list at the end.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;
use rootstream::failure::{Failure, refuse};
use serde::Serialize;

use super::access::Access;
use super::many;
use crate::say;

/// One node's result.
#[derive(Debug, Serialize)]
struct Outcome<T> {
    node: String,
    ok: bool,
    seconds: f64,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    done: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
}

/// Does the same with every node, at most `at_once` at a time; each gets a line or an entry, and those that
/// fail hold nobody up.
///
/// # Errors
/// Any of them failed; the error names all that did.
pub(super) fn for_each<T: fmt::Display + Serialize + Send>(
    nodes: &[Access],
    at_once: usize,
    json: bool,
    work: impl Fn(&Access) -> Result<T> + Sync,
) -> Result<()> {
    let mut outcomes = Vec::new();
    let timed = |access: &Access| {
        let start = Instant::now();
        let result = work(access);
        (result, start.elapsed())
    };
    many::each(nodes, at_once, timed, |access, (result, took)| {
        let outcome = Outcome::of(&access.node, result, took);
        if !json {
            say::result(&outcome);
        }
        outcomes.push(outcome);
    });
    if json {
        // As they were named, not as they ended.
        let place = |node: &str| nodes.iter().position(|access| access.node == node);
        outcomes.sort_by_key(|outcome| place(&outcome.node));
        say::json(&outcomes)?;
    }
    let failed: Vec<&str> =
        outcomes.iter().filter(|outcome| !outcome.ok).map(|outcome| outcome.node.as_str()).collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(refuse(
        format!("{} of {} nodes failed: {}", failed.len(), nodes.len(), failed.join(",")),
        "each one's own line says why; the others are done, and the same command with these names tries them again",
    ))
}

impl<T> Outcome<T> {
    fn of(node: &str, result: Result<T>, took: Duration) -> Self {
        let (done, error) = match result {
            Ok(done) => (Some(done), None),
            Err(error) => (None, Some(Failure::from_error(&error))),
        };
        let seconds = (took.as_secs_f64() * 10.0).round() / 10.0;
        Self { node: node.to_owned(), ok: error.is_none(), seconds, done, error }
    }
}

impl<T: fmt::Display> fmt::Display for Outcome<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, seconds, done, error, .. } = self;
        match (done, error) {
            (Some(done), _) => write!(f, "{node}: {done}, {seconds} s"),
            (None, Some(Failure { what, why, todo })) if what == why => {
                write!(f, "{node}: failed after {seconds} s: {what}; what to do: {todo}")
            }
            (None, Some(Failure { what, why, todo })) => {
                write!(f, "{node}: failed after {seconds} s: {what}: {why}; what to do: {todo}")
            }
            (None, None) => write!(f, "{node}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootstream::failure::Advise;

    #[test]
    fn a_result_is_one_line() {
        let took = Duration::from_millis(1234);
        assert_eq!(Outcome::of("n1", Ok("on (was off)"), took).to_string(), "n1: on (was off), 1.2 s");
        let error = Err::<String, _>(anyhow::anyhow!("no answer")).advise("asking the BMC of n2", "look at its cable");
        let outcome = Outcome::of("n2", error, took);
        assert_eq!(
            outcome.to_string(),
            "n2: failed after 1.2 s: asking the BMC of n2: no answer; what to do: look at its cable"
        );
        let json = serde_json::to_value(&outcome).unwrap();
        assert_eq!((json["ok"].as_bool(), json["error"]["todo"].as_str()), (Some(false), Some("look at its cable")));
    }
}
