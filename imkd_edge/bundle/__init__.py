"""Bundle: a model in one folder, NAME.imkd, protected by checksums. Reads and writes files, knows no Detector."""

from imkd_edge.bundle.contract import Contract
from imkd_edge.bundle.files import check_writable, npz_bytes, read_npz, write_atomically
from imkd_edge.bundle.format import (
    PARTS,
    Bundle,
    bundle_name,
    check_target,
    find,
    replace_contract,
    shipped,
    write_bundle,
)
from imkd_edge.bundle.golden import golden_rig

__all__ = [
    "PARTS",
    "Bundle",
    "Contract",
    "bundle_name",
    "check_target",
    "check_writable",
    "find",
    "golden_rig",
    "npz_bytes",
    "read_npz",
    "replace_contract",
    "shipped",
    "write_atomically",
    "write_bundle",
]
