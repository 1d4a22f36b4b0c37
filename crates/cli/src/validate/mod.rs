//! `farebox validate`: a black-box check of a paid URL, whoever serves it.
//!
//! [`probe`] asks and keeps the answers, [`read`] reads them, [`pay`] pays once if that is wanted,
//! and each function in [`checks`] judges one thing and names the requirements it stands for. To add
//! a check, write such a function and give it a line in its file's list.

pub(crate) mod checks;
pub(crate) mod pay;
pub(crate) mod probe;
pub(crate) mod read;

use std::{future::Future, pin::Pin};

use serde_json::{Value, json};

use self::{pay::Paying, probe::Site};
use crate::{
    args::Validate,
    failure::{Failure, printable},
    request::{Prepared, client},
};

/// One thing to find out.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    /// The requirements it stands for, by their ids in `spec/requirements.toml`.
    pub(crate) ids: &'static [&'static str],
    pub(crate) level: Level,
    pub(crate) run: Run,
}

/// What a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// A failure.
    Must,
    /// A warning.
    Should,
}

/// How a check finds out.
pub(crate) enum Run {
    /// From what was answered already.
    Look(fn(&Site) -> Verdict),
    /// By asking more.
    Ask(for<'a> fn(&'a Site) -> Asking<'a>),
}

pub(crate) type Asking<'a> = Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;
pub(crate) type Verdict = Result<(), Finding>;

/// What keeps a check from passing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// It does not hold; the check's level says how bad that is.
    Wrong(String),
    /// It holds, and yet the operator should know this.
    Warn(String),
    /// It could not be looked at, or does not apply.
    Skip(String),
}

impl Check {
    pub(crate) const fn look(
        name: &'static str,
        ids: &'static [&'static str],
        level: Level,
        run: fn(&Site) -> Verdict,
    ) -> Self {
        let run = Run::Look(run);
        Self {
            name,
            ids,
            level,
            run,
        }
    }

    pub(crate) const fn ask(
        name: &'static str,
        ids: &'static [&'static str],
        level: Level,
        run: for<'a> fn(&'a Site) -> Asking<'a>,
    ) -> Self {
        let run = Run::Ask(run);
        Self {
            name,
            ids,
            level,
            run,
        }
    }
}

/// [`Finding::Wrong`] unless `holds`.
pub(crate) fn ensure(holds: bool, wrong: impl FnOnce() -> String) -> Verdict {
    if holds {
        Ok(())
    } else {
        Err(Finding::Wrong(wrong()))
    }
}

/// Several verdicts as one: what is wrong ends the round, a warning waits for something worse.
#[derive(Default)]
pub(crate) struct Round(Option<Finding>);

impl Round {
    pub(crate) fn add(&mut self, verdict: Verdict) -> Verdict {
        match verdict {
            Err(warning @ Finding::Warn(_)) => {
                self.0.get_or_insert(warning);
                Ok(())
            }
            other => other,
        }
    }

    pub(crate) fn end(self) -> Verdict {
        self.0.map_or(Ok(()), Err)
    }
}

pub(crate) fn skip<T>(why: impl Into<String>) -> Result<T, Finding> {
    Err(Finding::Skip(why.into()))
}

/// How often each outcome came up, and where to say so.
#[derive(Default)]
struct Report {
    json: bool,
    passed: usize,
    failed: usize,
    warned: usize,
    skipped: usize,
}

impl Report {
    async fn run(&mut self, site: &Site, checks: &[Check]) {
        for check in checks {
            let verdict = match check.run {
                Run::Look(look) => look(site),
                Run::Ask(ask) => ask(site).await,
            };
            self.say(check, verdict);
        }
    }

    fn say(&mut self, check: &Check, verdict: Verdict) {
        let (outcome, detail) = match (verdict, check.level) {
            (Ok(()), _) => ("pass", None),
            (Err(Finding::Wrong(why)), Level::Must) => ("fail", Some(why)),
            (Err(Finding::Wrong(why)), Level::Should) | (Err(Finding::Warn(why)), _) => {
                ("warn", Some(why))
            }
            (Err(Finding::Skip(why)), _) => ("skip", Some(why)),
        };
        *match outcome {
            "pass" => &mut self.passed,
            "fail" => &mut self.failed,
            "warn" => &mut self.warned,
            _ => &mut self.skipped,
        } += 1;
        if self.json {
            println!(
                "{}",
                json!({
                    "check": check.name,
                    "requirements": check.ids,
                    "outcome": outcome,
                    "detail": detail,
                })
            );
            return;
        }
        let detail = detail.map(|why| format!(": {why}")).unwrap_or_default();
        let line = format!(
            "{outcome}  {:<16} {}{detail}",
            check.ids.join(" "),
            check.name
        );
        // On one line, whatever the server's text holds.
        println!("{}", printable(&line).replace('\n', " "));
    }
}

pub(crate) async fn run(args: Validate) -> Result<(), Failure> {
    let request = Prepared::new(&args.request)?;
    let paying = Paying::new(&args, &request)?;
    let mut site = Site::open(client()?, request).await?;
    let mut report = Report {
        json: args.json,
        ..Report::default()
    };
    for checks in checks::UNPAID {
        report.run(&site, checks).await;
    }
    site.paid = paying.pay(&site).await;
    for checks in checks::AFTER_PAYING {
        report.run(&site, checks).await;
    }
    let Report {
        passed,
        failed,
        warned,
        skipped,
        ..
    } = report;
    let cost = site.paid.as_ref().map_or(&Value::Null, |paid| &paid.cost);
    if args.json {
        let summary =
            json!({ "passed": passed, "failed": failed, "warned": warned, "skipped": skipped });
        println!("{}", json!({ "summary": summary, "paid": cost }));
    } else {
        if let Value::Object(cost) = cost {
            println!("paid {}", Value::from(cost.clone()));
        }
        println!("{passed} passed, {failed} failed, {warned} warnings, {skipped} skipped");
    }
    match failed {
        0 => Ok(()),
        // The lines above are all there is to say.
        _ => Err(Failure::new(1, "")),
    }
}
