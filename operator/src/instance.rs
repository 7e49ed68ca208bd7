//! The agent: process 1 of every Redis and Sentinel container.

pub mod config;
