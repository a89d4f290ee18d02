//! What the bundle consists of, as a CycloneDX document: each Debian package, each crate, each npm package of the
//! web chat, with version and licence.
//!
//! No time and no random serial number is in it, so that the same parts give the same bytes. Crates are those that the
//! programs are linked from (development dependencies and other processors left out).

use crate::ARCHITECTURE;
use crate::command::run;
use crate::error::BuildError;
use crate::image::Image;
use crate::lock::Lock;
use crate::portable::PROGRAMS;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Makes the document.
pub fn make(
    checkout: &Path,
    version: &str,
    lock: &Lock,
    images: &BTreeMap<String, Image>,
    with_web: bool,
) -> Result<Vec<u8>, BuildError> {
    let mut components = debian(lock, images);
    components.extend(crates(checkout)?);
    if with_web {
        components.extend(npm(checkout)?);
    }
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {
            "bom-ref": format!("maxim@{version}"),
            "type": "application",
            "name": "maxim",
            "version": version,
            "licenses": [{"license": {"id": "Apache-2.0"}}],
        }},
        "components": components,
    });
    let mut text = serde_json::to_vec_pretty(&document)
        .map_err(|error| BuildError::Bundle { problem: format!("the SBOM: {error}") })?;
    text.push(b'\n');
    Ok(text)
}

/// A package is listed once for each version, with the images that hold it.
fn debian(lock: &Lock, images: &BTreeMap<String, Image>) -> Vec<Value> {
    let mut packages: BTreeMap<String, (Value, Vec<&str>)> = BTreeMap::new();
    for (image, locked) in &lock.images {
        for package in &locked.packages {
            let reference = format!(
                "pkg:deb/debian/{}@{}?arch={}&distro={}",
                package.name,
                package.version.replace(':', "%3A").replace('+', "%2B"),
                package.architecture,
                lock.suite
            );
            let names = images.get(image).and_then(|image| image.licences.get(&package.name));
            let licences: Vec<Value> = match names {
                Some(names) if !names.is_empty() => {
                    names.iter().map(|name| json!({"license": {"name": name}})).collect()
                }
                _ => vec![json!({"license": {
                    "name": format!("see /usr/share/doc/{}/copyright in the image", package.name)
                }})],
            };
            let make = || {
                json!({
                    "bom-ref": reference,
                    "type": "library",
                    "name": package.name,
                    "version": package.version,
                    "purl": reference,
                    "licenses": licences,
                    "hashes": [{"alg": "SHA-256", "content": package.sha256}],
                })
            };
            packages.entry(reference.clone()).or_insert_with(|| (make(), Vec::new())).1.push(image);
        }
    }
    packages
        .into_values()
        .map(|(mut component, images)| {
            let properties = images.iter().map(|image| json!({"name": "maxim:image", "value": image}));
            component["properties"] = properties.collect();
            component
        })
        .collect()
}

fn crates(checkout: &Path) -> Result<Vec<Value>, BuildError> {
    let wrong = |problem: String| BuildError::Bundle { problem: format!("the SBOM: {problem}") };
    let target = format!("{ARCHITECTURE}-unknown-linux-gnu");
    let mut command = Command::new("cargo");
    command
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &target])
        .current_dir(checkout);
    let output = run(&mut command, "listing the crates")?;
    let metadata: Value = serde_json::from_slice(&output).map_err(|error| wrong(error.to_string()))?;
    linked(&metadata).ok_or_else(|| wrong("cargo metadata gave an answer unlike any known".to_owned()))
}

/// The crates that the programs reach by dependencies that are not for development.
fn linked(metadata: &Value) -> Option<Vec<Value>> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut edges: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for node in metadata["resolve"]["nodes"].as_array()? {
        let mut targets = Vec::new();
        for dependency in node["deps"].as_array()? {
            let kinds = dependency["dep_kinds"].as_array()?;
            if kinds.iter().any(|kind| kind["kind"].as_str() != Some("dev")) {
                targets.push(text(&dependency["pkg"])?);
            }
        }
        edges.insert(text(&node["id"])?, targets);
    }
    let packages = metadata["packages"].as_array()?;
    let roots = PROGRAMS.map(|(package, _)| package);
    let mut open: Vec<String> = packages
        .iter()
        .filter(|package| roots.iter().any(|root| package["name"].as_str() == Some(root)))
        .filter_map(|package| text(&package["id"]))
        .collect();
    let mut reached = BTreeSet::new();
    while let Some(id) = open.pop() {
        if reached.insert(id.clone()) {
            open.extend(edges.get(&id).into_iter().flatten().cloned());
        }
    }
    let mut components = BTreeMap::new();
    for package in packages {
        if !reached.contains(package["id"].as_str()?) {
            continue;
        }
        let (name, version) = (text(&package["name"])?, text(&package["version"])?);
        let reference = format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"));
        let licence = match package["license"].as_str() {
            Some(expression) => json!({"expression": expression.replace('/', " OR ")}),
            None => json!({"license": {"name": package["license_file"].as_str().unwrap_or("not stated")}}),
        };
        let component = json!({
            "bom-ref": reference, "type": "library", "name": name, "version": version, "purl": reference,
            "licenses": [licence],
        });
        components.insert(reference, component);
    }
    Some(components.into_values().collect())
}

fn npm(checkout: &Path) -> Result<Vec<Value>, BuildError> {
    let path = checkout.join("im-core/web/package-lock.json");
    let text = fs::read(&path).map_err(BuildError::file("cannot read", &path))?;
    let lock: Value = serde_json::from_slice(&text)
        .map_err(|error| BuildError::Bundle { problem: format!("{}: {error}", path.display()) })?;
    let mut components = BTreeMap::new();
    for (place, package) in lock["packages"].as_object().into_iter().flatten() {
        let Some((_, name)) = place.rsplit_once("node_modules/") else { continue };
        if package["dev"].as_bool() == Some(true) {
            continue;
        }
        let version = package["version"].as_str().unwrap_or_default();
        let reference = format!("pkg:npm/{}@{version}", name.replace('@', "%40"));
        let licence = package["license"].as_str().unwrap_or("not stated");
        let component = json!({
            "bom-ref": reference, "type": "library", "name": name, "version": version, "purl": reference,
            "licenses": [{"expression": licence}],
        });
        components.insert(reference, component);
    }
    Ok(components.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_are_those_that_are_linked() {
        let package =
            |name: &str| json!({"id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0"});
        let dependency = |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let metadata = json!({
            "packages": [package("maxim-ctl"), package("linked"), package("only-tests"), package("stranger")],
            "resolve": {"nodes": [
                {"id": "maxim-ctl", "deps": [dependency("linked", Value::Null), dependency("only-tests", json!("dev"))]},
                {"id": "linked", "deps": []},
                {"id": "only-tests", "deps": []},
                {"id": "stranger", "deps": []},
            ]},
        });
        let found = linked(&metadata).unwrap();
        let names: Vec<_> = found.iter().filter_map(|component| component["name"].as_str()).collect();
        assert_eq!(names, ["linked", "maxim-ctl"]);
        assert_eq!(found[0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
    }

    #[test]
    fn this_checkout_lists_its_own_crates_with_licences() {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let components = crates(&checkout).unwrap();
        assert!(components.len() > 100, "{}", components.len());
        for component in &components {
            assert_ne!(component["licenses"][0]["license"]["name"], "not stated", "{component}");
        }
    }
}
