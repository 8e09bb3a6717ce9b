//! A machine in software emulation that has a complete KVM and an IOMMU, made of Debian packages.
