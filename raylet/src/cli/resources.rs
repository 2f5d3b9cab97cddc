//! Amounts of resources as people type them.
//!
//! The one thing to know: an amount has four digits after the point at most, because the scheduler
//! counts in 1/10,000; what it cannot count is refused here, not rounded. This file must not know how
//! much the machine has.

use raylet_core::resources::{Amount, Resources};
use std::collections::BTreeMap;
use std::fmt;

/// Far more than any machine has, and far from overflowing.
const WHOLES_MAX: f64 = 1e9;

/// A text that is no amount.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub(super) enum ParseResourcesError {
    #[error("{text:?} is no amount: a number from 0 to {WHOLES_MAX}, four digits after the point at most")]
    Amount { text: String },
    #[error("{text:?} is no list of resources: write {{\"tape\": 1}}")]
    List { text: String },
    #[error("{name:?} has an option of its own: {option}")]
    Own { name: String, option: &'static str },
}

/// Reads `2`, `0.5`.
pub(super) fn parse_amount(text: &str) -> Result<Amount, ParseResourcesError> {
    let error = || ParseResourcesError::Amount { text: text.to_owned() };
    let wholes: f64 = text.trim().parse().map_err(|_| error())?;
    amount(wholes).ok_or_else(error)
}

fn amount(wholes: f64) -> Option<Amount> {
    let units = wholes * Amount::ONE.0 as f64;
    // What was typed with four digits is a whole number of units but for what binary fractions lack.
    let is_countable = (units - units.round()).abs() < 1e-3;
    ((0.0..=WHOLES_MAX).contains(&wholes) && is_countable).then(|| Amount(units.round() as u64))
}

/// Resources that only this machine's users know, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Custom(Vec<(String, Amount)>);

/// Reads `{"tape": 1, "licence": 0.5}`.
pub(super) fn parse_custom(text: &str) -> Result<Custom, ParseResourcesError> {
    let list = || ParseResourcesError::List { text: text.to_owned() };
    let found: BTreeMap<String, f64> = serde_json::from_str(text).map_err(|_| list())?;
    found.into_iter().map(|(name, wholes)| custom(name, wholes)).collect::<Result<_, _>>().map(Custom)
}

fn custom(name: String, wholes: f64) -> Result<(String, Amount), ParseResourcesError> {
    let options = [("CPU", "--num-cpus"), ("GPU", "--num-gpus"), ("memory", "--memory")];
    if let Some((_, option)) = options.into_iter().find(|(own, _)| own.eq_ignore_ascii_case(&name)) {
        return Err(ParseResourcesError::Own { name, option });
    }
    let amount = amount(wholes).ok_or_else(|| ParseResourcesError::Amount { text: wholes.to_string() })?;
    Ok((name, amount))
}

impl Custom {
    /// The same resources with these beside.
    pub(super) fn beside(&self, resources: Resources) -> Resources {
        self.0.iter().fold(resources, |resources, (name, amount)| resources.with(name, *amount))
    }
}

/// As it is typed.
impl fmt::Display for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wholes = |amount: &Amount| amount.0 as f64 / Amount::ONE.0 as f64;
        let wholes: BTreeMap<&str, f64> = self.0.iter().map(|(name, amount)| (name.as_str(), wholes(amount))).collect();
        f.write_str(&serde_json::to_string(&wholes).expect("names are text and amounts are numbers"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_without_rounding() {
        let check = |text, units| assert_eq!(parse_amount(text), Ok(Amount(units)), "{text:?}");
        check("2", 20_000);
        check("0", 0);
        check("0.3", 3_000);
        check("0.0001", 1);
        for text in ["", "-1", "nan", "inf", "0.00001", "1e10", "two"] {
            assert!(parse_amount(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn lists_are_read_and_written() {
        let custom = parse_custom(r#"{"tape": 1, "licence": 0.5}"#).unwrap();
        assert_eq!(custom.0, [("licence".to_owned(), Amount(5_000)), ("tape".to_owned(), Amount::ONE)]);
        assert_eq!(parse_custom(&custom.to_string()), Ok(custom.clone()));
        assert_eq!(custom.beside(Resources::default()).of("tape"), Amount::ONE);
        assert!(matches!(parse_custom("tape=1"), Err(ParseResourcesError::List { .. })));
        assert!(matches!(parse_custom(r#"{"tape": -1}"#), Err(ParseResourcesError::Amount { .. })));
        assert!(matches!(parse_custom(r#"{"cpu": 1}"#), Err(ParseResourcesError::Own { option: "--num-cpus", .. })));
    }
}
