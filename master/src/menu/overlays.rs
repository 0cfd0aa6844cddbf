//! What goes on top of the image in a node's menu.

use anyhow::Result;
use rootstream::image::trust::Keys;

use crate::config::nodes::Node;
use crate::config::site::{OVERLAYS, Site};
use crate::overlay::Index;

/// The URLs of the overlays of `node`, or of a machine that no node entry names; or why it could not boot with them.
/// Where it trusts keys, each must be signed with one.
///
/// # Errors
/// What was published is unreadable.
pub(super) fn urls(
    site: &Site,
    node: Option<&Node>,
    origin: &str,
    trusted: Option<&Keys>,
) -> Result<Result<Vec<String>, String>> {
    let mut urls = Vec::new();
    for name in node.and_then(|node| node.overlays.as_ref()).unwrap_or(&site.config().defaults.overlays) {
        let again = format!("run: rootstream overlay publish {name}");
        let Some(index) = Index::of(site, name)? else {
            return Ok(Err(format!("the overlay {name} is not published; {again}")));
        };
        let archive = match index.archive(site, node) {
            Ok(Some(archive)) => archive,
            Ok(None) => {
                log::warn!(
                    "machines that no node entry names boot without the overlay {name}: it is made for each node"
                );
                continue;
            }
            Err(why) => return Ok(Err(why)),
        };
        if let Some(keys) = trusted
            && let Err(why) = index.check_signature(site, archive, keys)
        {
            return Ok(Err(format!("it would refuse the overlay {name}: {why:#}; {again}")));
        }
        urls.push(format!("{origin}/{OVERLAYS}/{name}/{}", archive.file));
    }
    Ok(Ok(urls))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::nodes::Nodes;
    use crate::keys;
    use crate::overlay::Format;

    #[test]
    fn overlays_are_those_of_the_node_as_it_is_now() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        let nodes = |ip: &str, more: &str| {
            let n1 = "[[node]]\nname = 'n1'\nmac = '52:54:00:ac:10:01'\n";
            let n2 = "[[node]]\nname = 'n2'\nmac = '52:54:00:ac:10:02'\nip = '172.16.0.2'\noverlays = []\n";
            fs::write(at("nodes.toml"), format!("{n1}ip = '{ip}'\n{n2}{more}")).unwrap();
        };
        let network = "[network]\ninterface = 'br0'\naddress = '172.16.0.254/24'\n";
        fs::write(at("site.toml"), format!("{network}[defaults]\noverlays = ['same', 'own']\n")).unwrap();
        fs::create_dir_all(at("overlays/same/etc")).unwrap();
        fs::create_dir_all(at("overlays/own/etc")).unwrap();
        fs::write(at("overlays/same/etc/motd"), "hello").unwrap();
        fs::write(at("overlays/own/etc/address.in"), "@ip@").unwrap();
        nodes("172.16.0.1", "");
        let site = Site::open(folder.path()).unwrap();
        let of = |which: usize| {
            let nodes = Nodes::of(&site).unwrap();
            urls(&site, nodes.iter().nth(which), "http://m", None).unwrap()
        };
        let publish = |name: &str| {
            let index =
                crate::overlay::publish(&site, &name.parse().unwrap(), Format::TarZst, None, false).unwrap().index;
            index.archives().map(|archive| format!("http://m/overlays/{name}/{}", archive.file)).collect::<Vec<_>>()
        };
        let n3 = "[[node]]\nname = 'n3'\nmac = '52:54:00:ac:10:03'\nip = '172.16.0.3'\n";

        assert!(of(0).unwrap_err().contains("overlay same is not published"));
        let same = publish("same");
        assert!(of(0).unwrap_err().contains("run: rootstream overlay publish own"));
        let own = publish("own");
        assert_eq!(of(0), Ok([&same[..], &own[..1]].concat()));
        assert_eq!(of(1), Ok(vec![]));
        // A machine that no node entry names has nothing to fill in.
        assert_eq!(of(9), Ok(same));
        nodes("172.16.0.9", n3);
        let why = of(0).unwrap_err();
        assert!(why.contains("overlay own was published when its ip was 172.16.0.1; run:"), "{why}");
        assert!(of(2).unwrap_err().contains("overlay own was published without it"));
        publish("own");
        assert_eq!(of(0).unwrap().len(), 2);

        // What nodes would refuse is found here.
        keys::new(&site, &"site".parse().unwrap()).unwrap();
        let trusted = Keys::parse(&keys::trusted(&site).unwrap()).unwrap();
        let nodes = Nodes::of(&site).unwrap();
        let signed = || urls(&site, nodes.iter().next(), "http://m", Some(&trusted)).unwrap();
        let why = signed().unwrap_err();
        assert!(why.contains("would refuse the overlay same: it has no signature"), "{why}");
        let same = publish("same");
        publish("own");
        assert_eq!(signed().unwrap().len(), 2);
        let file = at("store").join(same[0].strip_prefix("http://m/").unwrap());
        fs::write(file, "changed").unwrap();
        assert!(signed().unwrap_err().contains("not of these bytes"));
    }
}
