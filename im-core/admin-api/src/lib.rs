//! Requests and responses of the IM core's administration socket, and a client.
