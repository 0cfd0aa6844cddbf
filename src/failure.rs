//! Why a boot failed, in the three parts every message needs: what failed, why, and what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The final message of a boot that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The step that failed, naming its URL, file, port or kernel release.
    pub what: String,
    /// The chain of causes, outermost first.
    pub why: String,
    /// What an administrator does about it.
    pub todo: String,
}

impl Failure {
    /// Reads the three parts out of an error chain: the outermost context is *what*, the rest of
    /// the chain *why*, and the outermost [`Remedy`] on the chain *todo*.
    pub fn from_error(error: &anyhow::Error) -> Self {
        // Each link by itself, so that a name of a megabyte does not hide what was wrong with it.
        let mut chain = error.chain().map(|link| cut(&link.to_string(), 500));
        let what = chain.next().unwrap_or_default();
        let mut causes: Vec<String> = Vec::new();
        for cause in chain {
            if causes.last() != Some(&cause) && cause != what {
                causes.push(cause);
            }
        }
        let todo = match error.downcast_ref::<Remedy>() {
            Some(remedy) => remedy.todo.clone(),
            None => "read the lines above this one; every step logs what it does".to_owned(),
        };
        let why = if causes.is_empty() { what.clone() } else { causes.join(": ") };
        Self::new(&what, &why, &todo)
    }

    /// The three parts, each cut where it is longer than a console is worth: an archive can name a file
    /// with a megabyte.
    pub fn new(what: &str, why: &str, todo: &str) -> Self {
        let bounded = |text| cut(text, 2000);
        Self { what: bounded(what), why: bounded(why), todo: bounded(todo) }
    }
}

/// The first `longest` bytes, and a word about the rest.
fn cut(text: &str, longest: usize) -> String {
    let Some(end) = (0..=longest).rev().find(|at| text.is_char_boundary(*at)).filter(|_| text.len() > longest) else {
        return text.to_owned();
    };
    format!("{} … ({} bytes more)", text.get(..end).unwrap_or_default(), text.len() - end)
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  why: {}\n  what to do: {}", self.what, self.why, self.todo)
    }
}

/// A link of an error chain that also says what to do about it.
#[derive(Clone, Debug)]
pub struct Remedy {
    what: String,
    todo: String,
    /// It is this machine that cannot, whatever the server sends.
    here: bool,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Remedy {}

/// Attaches a [`Remedy`] to a result.
pub trait Advise<T> {
    /// Wraps an error as "`what`: cause", and remembers `todo` for the final message.
    ///
    /// # Errors
    /// The wrapped error, when there was one.
    fn advise(self, what: impl Into<String>, todo: impl Into<String>) -> anyhow::Result<T>;
}

impl<T, E> Advise<T> for Result<T, E>
where
    Result<T, E>: anyhow::Context<T, E>,
{
    fn advise(self, what: impl Into<String>, todo: impl Into<String>) -> anyhow::Result<T> {
        anyhow::Context::with_context(self, || Remedy { what: what.into(), todo: todo.into(), here: false })
    }
}

/// An error that starts a chain: `what` failed by itself, and `todo` mends it.
pub fn refuse(what: impl Into<String>, todo: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Remedy { what: what.into(), todo: todo.into(), here: false })
}

/// [`refuse`] for what another server or another try would not change: this machine is too small, or may not.
pub fn refuse_here(what: impl Into<String>, todo: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Remedy { what: what.into(), todo: todo.into(), here: true })
}

/// Whether it is this machine that failed: a system call did, or [`refuse_here`] says so.
pub fn is_here(error: &anyhow::Error) -> bool {
    let os = |link: &std::io::Error| link.raw_os_error().is_some();
    error.chain().any(|link| {
        link.is::<nix::Error>()
            || link.downcast_ref::<std::io::Error>().is_some_and(os)
            || link.downcast_ref::<Remedy>().is_some_and(|remedy| remedy.here)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn the_three_parts_come_from_the_chain() {
        let error = Err::<(), _>(std::io::Error::other("connection refused"))
            .advise("fetching http://m/i.tar", "start the server")
            .context("installing the image")
            .unwrap_err();
        let failure = Failure::from_error(&error);
        assert_eq!(failure.what, "installing the image");
        assert_eq!(failure.why, "fetching http://m/i.tar: connection refused");
        assert_eq!(failure.todo, "start the server");
    }

    #[test]
    fn a_single_link_is_its_own_reason() {
        let failure = Failure::from_error(&refuse("no rootstream.image= given", "add it"));
        assert_eq!(failure.what, failure.why);
        assert_eq!(failure.todo, "add it");
    }

    #[test]
    fn a_message_is_bounded_and_its_reason_stays() {
        let error = anyhow::anyhow!("too long").context("é".repeat(50_000)).context("reading");
        let why = Failure::from_error(&error).why;
        assert!(why.len() < 600 && why.ends_with("… (99500 bytes more): too long"), "{why}");
        let failure = Failure::new("a", &"x".repeat(70_000), "b");
        assert!(failure.why.len() < 2100, "{}", failure.why.len());
    }

    #[test]
    fn a_fault_of_this_machine_is_known_below_any_context() {
        let wrapped = |error: anyhow::Error| Err::<(), _>(error).advise("unpacking", "x").context("y").unwrap_err();
        assert!(is_here(&wrapped(refuse_here("no room", "more memory"))));
        assert!(is_here(&wrapped(std::io::Error::from_raw_os_error(28).into())));
        assert!(is_here(&wrapped(nix::Error::ENOSPC.into())));
        assert!(!is_here(&wrapped(refuse("damaged", "publish again"))));
        assert!(!is_here(&wrapped(std::io::Error::other("damaged").into())));
    }

    #[test]
    fn repeated_links_are_said_once() {
        let error = anyhow::anyhow!("disk on fire").context("disk on fire").context("reading");
        assert_eq!(Failure::from_error(&error).why, "disk on fire");
    }
}
