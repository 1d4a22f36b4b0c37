//! Redis and PostgreSQL for tests: started on free ports, stopped on drop.
