//! Which module may use which: the layers of the library, compared with its sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// Each module, lowest layer first, and the modules of lower layers that it may use. ARCHITECTURE.md
/// says what each is for.
const LAYERS: &[(&str, &[&str])] = &[
    ("printable", &[]),
    ("secret", &[]),
    ("dirs", &[]),
    ("cache_file", &[]),
    ("units", &[]),
    ("chain", &["units", "printable"]),
    ("job", &["chain"]),
    ("scan", &["job", "chain", "units", "cache_file"]),
    ("event", &["scan", "job", "chain", "units"]),
    ("engine", &["event", "scan", "job", "chain", "units", "printable"]),
    ("journal", &["job"]),
    (
        "source",
        &["engine", "journal", "event", "job", "chain", "secret", "printable", "cache_file"],
    ),
    ("energy", &["units"]),
    ("plot", &["units"]),
    ("estimate", &["chain", "units"]),
    ("grind", &["engine", "scan", "job", "chain", "units"]),
    ("bench", &["engine", "scan", "job", "chain", "units", "printable", "energy"]),
    ("report", &["engine", "event", "scan", "job", "chain", "units", "printable"]),
    // What the program is made of, beside its command line.
    ("exit", &["source", "printable"]),
    (
        "output",
        &["exit", "bench", "grind", "estimate", "plot", "source", "scan", "units", "printable"],
    ),
    ("signals", &["exit"]),
    ("value_error", &[]),
    ("protocols", &["exit", "source", "journal", "chain", "dirs", "secret", "value_error"]),
    ("cli", &["protocols", "exit", "report", "plot", "scan", "chain", "units", "value_error"]),
    ("config", &["cli", "protocols", "exit", "value_error"]),
    ("fuzzing", &["config", "exit", "bench", "source", "journal", "job", "chain", "printable"]),
];

/// What of the engine a source may name: its own side of it.
const OF_THE_ENGINE: &[&str] = &["Port", "ReportedBlock", "Health", "Sources", "SourceInfo"];

/// The paths that a file's code (its tests left aside) names, from the crate's root: `crate::a::b` as
/// `a::b`, and `super::` and `self::` resolved.
struct Paths {
    module: Vec<String>,
    found: BTreeSet<Vec<String>>,
}

impl Paths {
    fn of(module: Vec<String>, file: &Path) -> BTreeSet<Vec<String>> {
        let text = std::fs::read_to_string(file).unwrap();
        let parsed = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let mut paths = Self { module, found: BTreeSet::new() };
        paths.visit_file(&parsed);
        paths.found
    }

    fn add(&mut self, path: &[String]) {
        let (first, mut rest) = path.split_first().expect("a path has a first part");
        let mut base = match first.as_str() {
            "crate" => Vec::new(),
            "self" => self.module.clone(),
            "super" => self.module[..self.module.len().saturating_sub(1)].to_vec(),
            _ => return,
        };
        while let Some((next, others)) = rest.split_first().filter(|(next, _)| *next == "super") {
            assert_eq!(next, "super");
            base.pop();
            rest = others;
        }
        base.extend(rest.iter().cloned());
        self.found.insert(base);
    }

    fn add_tree(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.add_tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.add(&with(&name.ident)),
            syn::UseTree::Rename(name) => self.add(&with(&name.ident)),
            syn::UseTree::Glob(_) => self.add(before),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.add_tree(before, tree));
            }
        }
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|what| what.is_ident("test"))
    })
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if is_test(&module.attrs) {
            return;
        }
        self.module.push(module.ident.to_string());
        visit::visit_item_mod(self, module);
        self.module.pop();
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        if !is_test(&function.attrs) {
            visit::visit_item_fn(self, function);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_test(&item.attrs) {
            self.add_tree(&[], &item.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<_> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        self.add(&parts);
        visit::visit_path(self, path);
    }
}

/// Every module of the library with its file, the root as the empty path; tests left aside.
fn modules() -> BTreeMap<Vec<String>, PathBuf> {
    fn collect(folder: &Path, module: &[String], all: &mut BTreeMap<Vec<String>, PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let of_the_program = module.is_empty() && ["main", "commands"].contains(&name.as_str());
            if name == "tests" || of_the_program {
                continue;
            }
            let inner = [module, std::slice::from_ref(&name)].concat();
            if path.is_dir() {
                collect(&path, &inner, all);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inner = if module.is_empty() && name == "lib" { Vec::new() } else { inner };
                all.insert(inner, path);
            }
        }
    }
    let mut all = BTreeMap::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &[], &mut all);
    all
}

#[test]
fn every_module_uses_lower_layers_only() {
    for (place, (name, uses)) in LAYERS.iter().enumerate() {
        for used in *uses {
            assert!(
                LAYERS[..place].iter().any(|(lower, _)| lower == used),
                "the table: {used} is not below {name}"
            );
        }
    }
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for (module, file) in modules() {
        let Some(name) = module.first() else { continue };
        let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| layer == name) else {
            wrong.push(format!("{}: {name} is in no layer", file.display()));
            continue;
        };
        for path in Paths::of(module.clone(), &file) {
            let Some(to) = path.first().filter(|to| *to != name) else { continue };
            if !LAYERS.iter().any(|(layer, _)| layer == to) {
                // A macro, or the crate's own name.
                continue;
            }
            used.insert((name.clone(), to.clone()));
            if !allowed.contains(&to.as_str()) {
                wrong.push(format!("{}: {} may not use {}", file.display(), name, path.join("::")));
            }
            if name == "source" && to == "engine" {
                let item = path.get(1).map_or("", String::as_str);
                if !OF_THE_ENGINE.contains(&item) {
                    wrong.push(format!("{}: a source may not use {item}", file.display()));
                }
            }
        }
    }
    for (name, uses) in LAYERS {
        for of in *uses {
            if !used.contains(&((*name).to_owned(), (*of).to_owned())) {
                wrong.push(format!("the table: {name} does not use {of}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Files that use each other in a circle are one file in several places. What stands below a module may
/// use it: from outside they are one.
#[test]
fn no_files_use_each_other_in_a_circle() {
    let modules = modules();
    let mut edges: BTreeMap<&Vec<String>, BTreeSet<&Vec<String>>> = BTreeMap::new();
    for (module, file) in &modules {
        for path in Paths::of(module.clone(), file) {
            let target = (1..=path.len()).rev().find_map(|n| modules.get_key_value(&path[..n]));
            if let Some((target, _)) = target.filter(|(target, _)| !module.starts_with(target)) {
                edges.entry(module).or_default().insert(target);
            }
        }
    }
    // What uses nothing that is left, and what nothing uses, is taken away until there is no such file:
    // what is left leads in circles.
    loop {
        let in_use: BTreeSet<_> = edges.values().flatten().copied().collect();
        let unused: Vec<_> =
            edges.keys().filter(|module| !in_use.contains(*module)).copied().collect();
        for module in &unused {
            edges.remove(module);
        }
        let ends: Vec<_> = modules
            .keys()
            .filter(|module| edges.get(module).is_some_and(BTreeSet::is_empty))
            .collect();
        let leaves: Vec<_> = modules.keys().filter(|module| !edges.contains_key(module)).collect();
        for end in &ends {
            edges.remove(end);
        }
        let mut changed = !ends.is_empty() || !unused.is_empty();
        for uses in edges.values_mut() {
            let before = uses.len();
            uses.retain(|used| !leaves.contains(used) && !ends.contains(used));
            changed |= uses.len() != before;
        }
        if !changed {
            break;
        }
    }
    let circles: Vec<_> = edges
        .iter()
        .map(|(module, uses)| {
            let uses: Vec<_> = uses.iter().map(|used| used.join("::")).collect();
            format!("{} uses {}", module.join("::"), uses.join(", "))
        })
        .collect();
    assert!(circles.is_empty(), "\n{}", circles.join("\n"));
}
