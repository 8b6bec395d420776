//! The environments, one file each. Adding one is a file here and a line in [`ALL`].

mod engine;
mod handed;
mod host;
mod identity;
mod image;
pub mod sandbox;

use crate::environment::Environment;
use crate::spec::{Spec, SpecError};

/// Every environment, in the order of the default run.
pub const ALL: &[&dyn Environment] = &[&host::Host, &sandbox::Sandbox, &engine::DOCKER, &engine::PODMAN];

/// The environment of that name.
pub fn find(name: &str) -> Option<&'static dyn Environment> {
    ALL.iter().copied().find(|environment| environment.name() == name)
}

/// Reads an environment string and checks name, keys and values.
pub fn parse(string: &str) -> Result<(&'static dyn Environment, Spec), SpecError> {
    let spec = Spec::parse(string)?;
    let environment = resolve(&spec).map_err(|e| SpecError { string: string.to_owned(), ..e })?;
    Ok((environment, spec))
}

/// The environment that a spec names, after a check of its keys and values.
pub fn resolve(spec: &Spec) -> Result<&'static dyn Environment, SpecError> {
    let error = |problem: String| SpecError { string: spec.to_string(), problem };
    let Some(environment) = find(&spec.name) else {
        let names: Vec<&str> = ALL.iter().map(|environment| environment.name()).collect();
        return Err(error(format!("there is no environment {:?}; there are: {}", spec.name, names.join(", "))));
    };
    spec.check(environment.keys())?;
    environment.check(spec).map_err(error)?;
    Ok(environment)
}
