//! What the IM core keeps: domain traits, three SQL stores, live state, migrations.
