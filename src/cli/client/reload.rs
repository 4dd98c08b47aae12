//! `evenkeel reload`: reloads the configuration of the running balancer.

use super::arguments::ReloadArguments;
use super::ask::ask_and_show;
use super::request::ApiRequest;
use crate::admin::view::ReloadView;
use crate::cli::failure::CommandError;

/// Prints what changed; a refused configuration is a failure with all its messages.
pub(crate) fn reload(arguments: ReloadArguments) -> Result<(), CommandError> {
    let conditions = arguments.conditions.iter().map(ToString::to_string);
    let conditions: Vec<String> = conditions.collect();
    let body = serde_json::json!({ "if": conditions });
    let request = ApiRequest::post("/api/v1/reload", &body);
    ask_and_show(
        &arguments.ask,
        request,
        |reloaded: &ReloadView| match reloaded.summary.as_slice() {
            [] => "nothing changed\n".to_owned(),
            changes => changes.iter().map(|change| format!("{change}\n")).collect(),
        },
    )
}
