//! `vlan=`: a VLAN to make on top of a port.

/// A VLAN to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// Its name as a network device.
    pub name: String,
    /// Its number, 1 to 4094.
    pub id: u16,
    /// The port or bond that it is on, by name or MAC.
    pub over: String,
}
