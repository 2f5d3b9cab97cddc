//! A raylet in the driver's own process, which others can join.
//!
//! The one thing to know: the driver is then a client by the raylet's own connection to the store,
//! so it needs no socket itself. This file must not know how a raylet works.

use crate::Client;
use raylet::raylet::FIRST_JOB;
use raylet::{Config, Raylet, StartError};
use std::path::PathBuf;

impl Client {
    /// Starts a raylet in this process; it ends, with its files, when the client is dropped.
    ///
    /// [`Config::embedded`] is a session of its own. Others join by
    /// [`ConnectOptions::at`](crate::ConnectOptions::at) the [`Client::session_directory`].
    pub fn embedded(config: &Config) -> Result<Client, StartError> {
        let raylet = Raylet::start(&Config { is_driver: true, ..config.clone() })?;
        Ok(Client {
            store: raylet.store().clone(),
            job: FIRST_JOB,
            session_id: raylet.session().record().session_id.clone(),
            raylet: Some(raylet),
        })
    }

    /// Where others find the raylet of this process; `None` where it has none.
    pub fn session_directory(&self) -> Option<PathBuf> {
        let raylet = self.raylet.as_ref()?;
        Some(raylet.session().directory().to_owned())
    }
}
