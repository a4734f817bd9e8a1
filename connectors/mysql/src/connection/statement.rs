//! Statements with parameters: prepared, run once, and closed.
//!
//! (MySQL internals manual, "Prepared Statements".)

use super::results::{Failure, Head, PackedRow};
use super::{Connection, garbled};
use crate::packet::Fields;
use crate::value::{Form, Value};
use caudal_core::Error;
use std::sync::Arc;

const COM_STMT_PREPARE: u8 = 0x16;
const COM_STMT_EXECUTE: u8 = 0x17;
const COM_STMT_CLOSE: u8 = 0x19;

/// The rows of a statement, read one by one as they come. Dropped before its end it leaves the connection unusable.
pub(crate) struct Rows<'a> {
    connection: &'a mut Connection,
    statement: u32,
    /// None: there are no rows, or no more.
    forms: Option<Arc<[Form]>>,
}

impl Rows<'_> {
    /// The next row.
    pub(crate) async fn next(&mut self) -> Result<Option<PackedRow>, Failure> {
        let Some(forms) = &self.forms else { return Ok(None) };
        match self.connection.row().await {
            Ok(Some(bytes)) => Ok(Some(PackedRow { bytes, forms: Arc::clone(forms) })),
            Ok(None) => {
                self.forms = None;
                self.connection.close(self.statement).await?;
                Ok(None)
            }
            Err(e) => {
                self.forms = None;
                Err(self.connection.closed_after(self.statement, e).await)
            }
        }
    }

    /// Reads what is left, and forgets it.
    pub(crate) async fn skip(&mut self) -> Result<(), Failure> {
        while self.next().await?.is_some() {}
        Ok(())
    }
}

impl Connection {
    /// Runs a statement with parameters.
    pub(crate) async fn run(&mut self, sql: &str, parameters: &[Value]) -> Result<Rows<'_>, Failure> {
        let (statement, wanted) = self.prepare(sql).await?;
        if wanted != parameters.len() {
            return Err(Error::bug("give a statement as many parameters as it has").into());
        }
        match self.ask(&execution(statement, parameters)).await {
            Ok(Head::Rows(forms)) => Ok(Rows { connection: self, statement, forms: Some(forms) }),
            Ok(Head::Done { .. }) => {
                self.close(statement).await?;
                Ok(Rows { connection: self, statement, forms: None })
            }
            Err(e) => Err(self.closed_after(statement, e).await),
        }
    }

    /// Its number, and how many parameters it has.
    async fn prepare(&mut self, sql: &str) -> Result<(u32, usize), Failure> {
        self.begin()?;
        self.command(&[&[COM_STMT_PREPARE], sql.as_bytes()].concat()).await?;
        let Prepared { statement, columns, parameters } =
            Prepared::parse(&self.packet().await?).ok_or_else(garbled)?;
        for count in [parameters, columns] {
            if count > 0 {
                self.columns(count.into()).await?;
            }
        }
        self.outstanding = false;
        Ok((statement, parameters.into()))
    }

    /// The server answers nothing.
    async fn close(&mut self, statement: u32) -> Result<(), Failure> {
        self.begin()?;
        let id = statement.to_le_bytes();
        self.command(&[COM_STMT_CLOSE, id[0], id[1], id[2], id[3]]).await?;
        self.outstanding = false;
        Ok(())
    }

    /// The failure of a statement that is closed, where the connection allows that.
    async fn closed_after(&mut self, statement: u32, failure: Failure) -> Failure {
        if let Failure::Refused(_) = failure
            && let Err(lost) = self.close(statement).await
        {
            return lost;
        }
        failure
    }
}

/// The server's answer to a statement that it prepared.
#[derive(Debug, PartialEq)]
struct Prepared {
    statement: u32,
    columns: u16,
    parameters: u16,
}

impl Prepared {
    fn parse(packet: &[u8]) -> Option<Self> {
        let mut fields = Fields(packet);
        (fields.take(1)? == [0]).then_some(())?;
        Some(Self {
            statement: u32::from_le_bytes(fields.array()?),
            columns: u16::from_le_bytes(fields.array()?),
            parameters: u16::from_le_bytes(fields.array()?),
        })
    }
}

/// The command that runs a statement: which parameters are NULL, the types of all, the values of the others.
fn execution(statement: u32, parameters: &[Value]) -> Vec<u8> {
    const NO_CURSOR: u8 = 0;
    let mut command = vec![COM_STMT_EXECUTE];
    command.extend_from_slice(&statement.to_le_bytes());
    command.push(NO_CURSOR);
    command.extend_from_slice(&1u32.to_le_bytes());
    if parameters.is_empty() {
        return command;
    }
    let nulls = command.len();
    command.resize(nulls + parameters.len().div_ceil(8), 0);
    for (i, _) in parameters.iter().enumerate().filter(|(_, p)| **p == Value::Null) {
        command[nulls + i / 8] |= 1 << (i % 8);
    }
    // The types follow.
    command.push(1);
    parameters.iter().for_each(|p| command.extend_from_slice(&p.parameter_type()));
    parameters.iter().for_each(|p| p.write(&mut command));
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_null_parameter_is_told_by_its_bit_alone() {
        let command = execution(7, &[Value::Int(1), Value::Null, Value::from("ab")]);
        let expected = b"\x17\x07\0\0\0\0\x01\0\0\0\x02\x01\x08\0\x06\0\xfd\0\x01\0\0\0\0\0\0\0\x02ab";
        assert_eq!(command, expected);
        assert_eq!(execution(7, &[]), b"\x17\x07\0\0\0\0\x01\0\0\0");
    }

    #[test]
    fn what_is_no_prepared_statement_is_found_out() {
        let packet = b"\0\x01\0\0\0\x02\0\x03\0\0\0\0";
        assert_eq!(Prepared::parse(packet), Some(Prepared { statement: 1, columns: 2, parameters: 3 }));
        assert_eq!(Prepared::parse(&packet[..8]), None);
        assert_eq!(Prepared::parse(b"\x01\x01\0\0\0\x02\0\x03\0\0\0\0"), None);
    }
}
