//! How Farebox works and how to work with it. Documentation only.
