//! A host's PCI function, passed through to a guest by VFIO.
