//! Templates: a named root filesystem and the languages in it. The recipes are data in `images/`, compiled in.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ImageError;
use crate::initramfs::hex;

/// A template that comes with the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuiltIn {
    /// What it is called.
    pub name: &'static str,
    packages: &'static str,
    recipe: &'static str,
}

/// All of them; the first one is the default.
pub const BUILT_IN: &[BuiltIn] = &[
    BuiltIn {
        name: "base",
        packages: include_str!("../../../images/base/packages.txt"),
        recipe: include_str!("../../../images/base/recipe.toml"),
    },
    BuiltIn {
        name: "rust",
        packages: include_str!("../../../images/rust/packages.txt"),
        recipe: include_str!("../../../images/rust/recipe.toml"),
    },
];

/// What the recipes name, in the order of [`BUILT_IN`]: every job of a service asks for it.
static LANGUAGES: LazyLock<Vec<Vec<String>>> = LazyLock::new(|| {
    let recipes = BUILT_IN.iter().map(Recipe::parse);
    recipes
        .map(|recipe| recipe.map_or_else(|_| Vec::new(), |recipe| recipe.languages))
        .collect()
});

impl BuiltIn {
    /// The languages that its recipe names, by their names on the wire.
    #[must_use]
    pub fn languages(&self) -> &'static [String] {
        let place = BUILT_IN.iter().position(|template| template.name == self.name);
        place.map_or(&[], |place| LANGUAGES[place].as_slice())
    }
}

/// The first template with that language, by the name on the wire (`python`, `rust`).
#[must_use]
pub fn template_for_language(language: &str) -> Option<&'static str> {
    BUILT_IN
        .iter()
        .find(|template| template.languages().iter().any(|name| name == language))
        .map(|template| template.name)
}

/// How a root filesystem is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipe {
    pub(crate) name: String,
    pub(crate) suite: String,
    pub(crate) languages: Vec<String>,
    pub(crate) packages: Vec<String>,
    pub(crate) commands: Vec<String>,
    pub(crate) exclude: Vec<String>,
    /// Of the recipe and the packages as written.
    pub(crate) sha256: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecipeFile {
    suite: String,
    languages: Vec<String>,
    #[serde(default)]
    commands: Vec<String>,
    #[serde(default)]
    exclude: Vec<String>,
}

impl Recipe {
    pub(crate) fn named(name: &str) -> Result<Self, ImageError> {
        let template = BUILT_IN
            .iter()
            .find(|template| template.name == name)
            .ok_or_else(|| ImageError::UnknownTemplate {
                name: name.to_owned(),
            })?;
        Self::parse(template)
    }

    fn parse(template: &BuiltIn) -> Result<Self, ImageError> {
        let wrong = |reason: String| ImageError::Recipe {
            name: template.name.to_owned(),
            reason,
        };
        let file: RecipeFile = toml::from_str(template.recipe).map_err(|error| wrong(error.to_string()))?;
        let packages = parse_packages(template.packages).map_err(wrong)?;
        let digest = Sha256::new()
            .chain_update(template.packages)
            .chain_update([0])
            .chain_update(template.recipe);
        Ok(Self {
            name: template.name.to_owned(),
            suite: file.suite,
            languages: file.languages,
            packages,
            commands: file.commands,
            exclude: file.exclude,
            sha256: hex(&digest.finalize()),
        })
    }
}

/// One name a line; blank lines and `#` comments are skipped.
pub(crate) fn parse_packages(text: &str) -> Result<Vec<String>, String> {
    let mut packages = BTreeSet::new();
    for line in text.lines() {
        let name = line.split('#').next().unwrap_or_default().trim();
        let is_name =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.:".contains(&byte);
        if !name.bytes().all(is_name) || name.starts_with('-') {
            return Err(format!("'{name}' is no package name"));
        }
        if !name.is_empty() {
            packages.insert(name.to_owned());
        }
    }
    if packages.is_empty() {
        return Err("it names no packages".to_owned());
    }
    Ok(packages.into_iter().collect())
}

/// An installed Debian package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// With the architecture where Debian's tools would show it.
    pub name: String,
    /// Debian's version.
    pub version: String,
}

/// What the store records about a template beside its root filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateManifest {
    /// The template.
    pub name: String,
    /// Debian's release.
    pub suite: String,
    /// By their names on the wire.
    pub languages: Vec<String>,
    /// Of the root filesystem, in hexadecimal: the same for the same packages and recipe.
    pub rootfs_sha256: String,
    /// Size of the root filesystem.
    pub rootfs_bytes: u64,
    /// Of the recipe that it was made by.
    pub recipe_sha256: String,
    /// Every package in it, sorted.
    pub packages: Vec<Package>,
}

impl TemplateManifest {
    pub(crate) const FILE: &str = "template.json";

    pub(crate) fn write(&self, directory: &Path) -> Result<(), ImageError> {
        let path = directory.join(Self::FILE);
        let text = serde_json::to_string_pretty(self).expect("a plain structure");
        fs::write(&path, text + "\n").map_err(ImageError::io("write", &path))
    }

    /// Reads it and checks that the root filesystem beside it is whole.
    pub(crate) fn read(name: &str, directory: &Path) -> Result<Self, ImageError> {
        let rootfs = directory.join(ROOTFS);
        let path = directory.join(Self::FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ImageError::TemplateMissing {
                    name: name.to_owned(),
                    path: rootfs,
                });
            }
            Err(error) => return Err(ImageError::from_io("read", &path, error)),
        };
        let manifest: Self =
            serde_json::from_slice(&text).map_err(|error| ImageError::invalid(&path, error.to_string()))?;
        crate::identify(&rootfs)?;
        let metadata = fs::metadata(&rootfs).map_err(ImageError::io("read", &rootfs))?;
        if metadata.len() != manifest.rootfs_bytes {
            let reason = format!("it is {} bytes, not {}", metadata.len(), manifest.rootfs_bytes);
            return Err(ImageError::invalid(&rootfs, reason));
        }
        Ok(manifest)
    }
}

/// The root filesystem's file name in its template's directory.
pub(crate) const ROOTFS: &str = "rootfs.squashfs";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_that_comes_with_the_program_is_good() {
        for template in BUILT_IN {
            let recipe = Recipe::named(template.name).expect(template.name);
            assert!(!recipe.languages.is_empty(), "{}", template.name);
            assert!(
                recipe.exclude.iter().all(|path| !path.starts_with('/')),
                "{}",
                template.name
            );
        }
        assert!(matches!(
            Recipe::named("none"),
            Err(ImageError::UnknownTemplate { .. })
        ));
    }

    #[test]
    fn a_language_picks_its_template() {
        assert_eq!(template_for_language("python"), Some("base"));
        assert_eq!(template_for_language("bash"), Some("base"));
        assert_eq!(template_for_language("rust"), Some("rust"));
        assert_eq!(template_for_language("cobol"), None);
    }

    #[test]
    fn package_lists_are_checked() {
        assert_eq!(
            parse_packages("b # why\n\n# c\na\nb\n").expect("good"),
            ["a", "b"]
        );
        for bad in ["", "# none", "a b", "-oOption", "a;b", "../x"] {
            assert!(parse_packages(bad).is_err(), "{bad}");
        }
    }
}
