//! The requirements of the drafts as data (`spec/requirements.toml`), checked against the tree.
