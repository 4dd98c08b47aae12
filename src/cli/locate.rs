//! Search of the configuration file.

use std::path::{Path, PathBuf};

use clap::Args;

use super::failure::CommandError;

/// Variable that names the file when `--config` does not.
const VARIABLE: &str = "EVENKEEL_CONFIG";

/// Places of the file when neither `--config` nor `EVENKEEL_CONFIG` names one, in this order.
const PLACES: [&str; 2] = ["./balancer.toml", "/etc/evenkeel/balancer.toml"];

#[derive(Debug, Args)]
pub(super) struct ConfigArgument {
    /// Configuration file [default: ./balancer.toml, then /etc/evenkeel/balancer.toml; env:
    /// EVENKEEL_CONFIG]
    // Read by `locate`: clap would take the variable for an argument, in conflict with others.
    #[arg(short, long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
}

/// Finds the file that is named, here or by the environment, or the first of the usual places that
/// exists.
///
/// # Errors
/// No file exists.
pub(super) fn locate(named: Option<PathBuf>) -> Result<PathBuf, CommandError> {
    named
        .or_else(from_environment)
        .or_else(|| first_of(&PLACES, Path::exists))
        .ok_or_else(|| {
            CommandError::Other(format!(
                "no configuration: neither {} is there; name one with --config FILE",
                PLACES.join(" nor ")
            ))
        })
}

fn from_environment() -> Option<PathBuf> {
    let value = std::env::var_os(VARIABLE)?;
    (!value.is_empty()).then(|| PathBuf::from(value))
}

fn first_of(places: &[&str], there: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let mut places = places.iter().map(PathBuf::from);
    places.find(|place| there(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_is_taken_even_if_it_is_not_there() {
        let named = PathBuf::from("/nowhere/x.toml");
        assert_eq!(locate(Some(named.clone())).unwrap(), named);
    }

    #[test]
    fn the_working_directory_comes_before_the_system() {
        let found = first_of(&PLACES, |_| true);
        assert_eq!(found, Some(PathBuf::from("./balancer.toml")));
        let found = first_of(&PLACES, |place| place.is_absolute());
        assert_eq!(found, Some(PathBuf::from("/etc/evenkeel/balancer.toml")));
        assert_eq!(first_of(&PLACES, |_| false), None);
    }
}
