//! What the design asks of the tree itself: arrows between crates, headers, sizes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// The largest file and function that the tree may hold, in lines. They only ever go down: when
/// `cargo test -p tests --test tidy` says there is room, lower them.
const FILE_LINES_MAX: usize = 740;
const FUNCTION_LINES_MAX: usize = 64;

/// Who may depend on whom, inside the workspace. What is not listed depends on nothing.
const ARROWS: &[(&str, &[&str])] = &[
    ("store", &["clock"]),
    ("client", &["api", "clock"]),
    ("apiserver", &["api", "clock", "store"]),
    ("scheduler", &["api", "client", "clock"]),
    ("controller-manager", &["api", "client", "clock"]),
    ("kubelet", &["api", "client", "clock"]),
    ("proxy", &["api", "client", "clock"]),
];
/// These may depend on everything.
const ROOFS: &[&str] = &["skiff", "tests", "bench"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root").to_owned()
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("readable tree").flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            match path.is_dir() {
                true if name.starts_with('.') || name.starts_with("target") => {}
                true => folders.push(path),
                false if name.ends_with(".rs") => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    found
}

#[test]
fn arrows_point_downwards() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo metadata runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let names: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        if ROOFS.contains(&name) {
            continue;
        }
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let target = dependency["name"].as_str().expect("a name");
            let for_tests_only = dependency["kind"].as_str() == Some("dev");
            if names.contains(target)
                && !for_tests_only
                && !allowed.get(name).is_some_and(|list| list.contains(&target))
            {
                wrong.push(format!("{name} -> {target}"));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that the design forbids: {wrong:?}");
}

#[test]
fn every_library_opens_with_its_four_lines() {
    for path in sources().iter().filter(|path| path.ends_with("src/lib.rs")) {
        let text = fs::read_to_string(path).expect("readable source");
        for heading in ["**Knows:**", "**Does not know:**", "**Invariants:**", "**Start reading at:**"] {
            assert!(text.contains(&format!("//! {heading}")), "{} lacks `//! {heading}`", path.display());
        }
    }
}

/// Functions of a formatted file with their lengths: from `fn` to the brace at the same indentation.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let is_function = ["fn ", "pub fn ", "async fn ", "pub async fn ", "pub(crate) fn ", "const fn "]
            .iter()
            .any(|start| code.starts_with(start));
        if !is_function {
            continue;
        }
        let close = format!("{}}}", &line[..line.len() - code.len()]);
        let open =
            lines[at..].iter().position(|line| line.ends_with('{') || line.ends_with(';') || line.ends_with('}'));
        let Some(open) = open.filter(|open| lines[at + open].ends_with('{')) else { continue };
        if let Some(length) = lines[at + open..].iter().position(|line| **line == close) {
            let name = code.split(['(', '<']).next().unwrap_or(code);
            found.push((name.to_owned(), open + length + 1));
        }
    }
    found
}

#[test]
fn files_and_functions_stay_small() {
    let (mut files, mut long) = (Vec::new(), Vec::new());
    for path in sources() {
        let text = fs::read_to_string(&path).expect("readable source");
        let name = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
        files.push((text.lines().count(), name.clone()));
        // Tables of tests may be long.
        let code = if name.ends_with("tests.rs") { "" } else { text.split("#[cfg(test)]").next().unwrap_or_default() };
        long.extend(functions(code).into_iter().map(|(function, lines)| (lines, format!("{name}: {function}"))));
    }
    files.sort_unstable_by(|a, b| b.cmp(a));
    long.sort_unstable_by(|a, b| b.cmp(a));
    println!("{} files, {} lines; the largest:", files.len(), files.iter().map(|(lines, _)| lines).sum::<usize>());
    files.iter().take(8).for_each(|(lines, name)| println!("  {lines:5}  {name}"));
    println!("{} functions; the longest:", long.len());
    long.iter().take(8).for_each(|(lines, name)| println!("  {lines:5}  {name}"));
    assert!(files[0].0 <= FILE_LINES_MAX, "{} has {} lines; split it by idea", files[0].1, files[0].0);
    assert!(long[0].0 <= FUNCTION_LINES_MAX, "{} has {} lines; branch in the caller", long[0].1, long[0].0);
}

#[test]
fn documents_link_to_files_that_exist() {
    let root = root();
    for name in ["README.md", "ARCHITECTURE.md"] {
        let text = fs::read_to_string(root.join(name)).expect("the document exists");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !target.starts_with("http") && !target.starts_with('#') {
                assert!(root.join(target.split('#').next().unwrap_or(target)).exists(), "{name} links to {target}");
            }
        }
    }
}
