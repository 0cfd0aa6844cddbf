//! `[group.NAME]` in site.toml and nodes.toml: what several nodes have in common.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Deserialize;
use toml::Spanned;

use super::addresses::Name;
use super::document::{Document, Place};
use super::facts::Named;
use super::nodes::{Access, BootPath};
use super::site::check_parameters;

/// The word for every node where groups are named; no group can have that name.
pub const ALL: &str = "all";

/// What a file says of its groups.
pub(super) type Sections = BTreeMap<Spanned<Name>, Section>;

/// `[group.NAME]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    image: Option<Spanned<Name>>,
    overlays: Option<Vec<Name>>,
    parameters: Option<Spanned<String>>,
    boot: Option<BootPath>,
    #[serde(default)]
    bmc: Access,
    #[serde(default)]
    facts: Named,
}

/// A group: what its nodes have unless they say something else.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its name.
    pub name: Name,
    /// The image.
    pub image: Option<Name>,
    /// The overlays, in order.
    pub overlays: Option<Vec<Name>>,
    /// Kernel parameters, after the site's.
    pub parameters: Option<String>,
    /// The way from the firmware to the kernel.
    pub boot: Option<BootPath>,
    /// How one speaks to their BMCs.
    pub bmc: Access,
    /// What templates in overlays may use.
    pub facts: Named,
    /// Where its name stands.
    pub(super) place: Place,
    /// Where its image stands.
    pub(super) image_place: Option<Place>,
}

/// The groups of a site, by their names in lower case.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    known: BTreeMap<String, Group>,
}

impl Groups {
    /// Checks what `document` says of its groups, beside those that `self` has from another file.
    ///
    /// # Errors
    /// [`super::Misconfigured`]: a name twice, or a mistake in what a group says.
    pub(super) fn with(mut self, document: &Document, sections: &Sections) -> Result<Self> {
        for (name, section) in sections {
            let place = document.place(&name.span());
            let key = name.get_ref().as_str().to_ascii_lowercase();
            if key == ALL {
                return Err(place.refuse(format!("@{ALL} is every node; give the group another name")));
            }
            if let Some(first) = self.known.get(&key) {
                let what = format!("there is a group {} already ({})", first.name, first.place.seen_from(&place));
                return Err(place.refuse(what));
            }
            if let Some(parameters) = &section.parameters {
                check_parameters(document, parameters)?;
            }
            section.bmc.check(document)?;
            let group = Group {
                name: name.get_ref().clone(),
                image: section.image.as_ref().map(|image| image.get_ref().clone()),
                overlays: section.overlays.clone(),
                parameters: section.parameters.as_ref().map(|p| p.get_ref().clone()),
                boot: section.boot,
                bmc: section.bmc.clone(),
                facts: section.facts.clone(),
                image_place: section.image.as_ref().map(|image| document.place(&image.span())),
                place,
            };
            self.known.insert(key, group);
        }
        Ok(self)
    }

    /// The group of that name, whatever its letters' case.
    pub fn get(&self, name: &str) -> Option<&Group> {
        self.known.get(&name.to_ascii_lowercase())
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Group> {
        self.known.values()
    }
}
