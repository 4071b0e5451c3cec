//! Many streams over one serial port.
