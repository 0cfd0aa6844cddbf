//! What templates can say about a node.

use std::collections::BTreeMap;

use crate::config::facts::GIVEN;
use crate::config::nodes::Node;
use crate::config::site::Config;

/// All of it: the node's own facts go before the site's.
pub(super) fn of(config: &Config, node: &Node) -> BTreeMap<String, String> {
    let network = &config.network;
    let given = [
        Some(node.name.to_string()),
        node.mac.map(|mac| mac.to_string()),
        Some(node.ip.to_string()),
        Some(network.address.prefix.to_string()),
        network.gateway().map(|gateway| gateway.to_string()),
        network.domain.as_ref().map(ToString::to_string),
        Some(network.address.address.to_string()),
    ];
    let given = GIVEN.into_iter().zip(given).filter_map(|(name, text)| Some((name.to_owned(), text?)));
    let named = config.facts.iter().chain(&node.facts).map(|(name, text)| (name.to_string(), text.clone()));
    named.chain(given).collect()
}
