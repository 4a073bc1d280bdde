//! An AMQP publisher that writes raw frames, with names and properties that client libraries refuse to encode.

use std::io;

use lapin::uri::AMQPUri;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const FRAME_END: u8 = 0xce;

/// Longest payload of a frame, in bytes: RabbitMQ's default is 128 KiB with head and end.
const MAX_PAYLOAD: usize = 128 * 1024 - 8;

/// Class and method number.
type Method = [u16; 2];
const START: Method = [10, 10];
const START_OK: Method = [10, 11];
const TUNE: Method = [10, 30];
const TUNE_OK: Method = [10, 31];
const OPEN: Method = [10, 40];
const OPEN_OK: Method = [10, 41];
const CHANNEL_OPEN: Method = [20, 10];
const CHANNEL_OPEN_OK: Method = [20, 11];
const CONFIRM_SELECT: Method = [85, 10];
const CONFIRM_SELECT_OK: Method = [85, 11];
const PUBLISH: Method = [60, 40];
const ACK: Method = [60, 80];

/// A message with arbitrary bytes. Absent properties are not written.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// The exchange. Empty means the default exchange.
    pub exchange: String,
    /// The routing key.
    pub routing_key: Vec<u8>,
    /// Header entries, encoded by [`header`] and [`nested_header`].
    pub headers: Vec<u8>,
    /// The property `message_id`.
    pub message_id: Option<Vec<u8>>,
    /// The property `type`.
    pub kind: Option<Vec<u8>>,
    /// The property `app_id`.
    pub app_id: Option<Vec<u8>>,
    /// The body.
    pub body: Vec<u8>,
}

impl Message {
    /// Payload of the content header frame: class, size, flags and properties.
    fn header(&self) -> Vec<u8> {
        let mut flags = 0x1000_u16;
        let (mut before, mut after) = (Vec::new(), Vec::new());
        if !self.headers.is_empty() {
            flags |= 0x2000;
            before = long(&self.headers);
        }
        for (flag, value) in [(0x80, &self.message_id), (0x20, &self.kind), (0x08, &self.app_id)] {
            if let Some(value) = value {
                flags |= flag;
                after.extend(short(value));
            }
        }
        let size = self.body.len() as u64;
        [&[0, 60, 0, 0][..], &size.to_be_bytes(), &flags.to_be_bytes(), &before, &[2], &after].concat()
    }
}

/// A connection with a channel in confirm mode.
pub struct BytePublisher(TcpStream);

impl BytePublisher {
    /// Connects without TLS.
    ///
    /// # Errors
    /// If the broker is unavailable, or answers with an unexpected method.
    pub async fn connect(url: &str) -> io::Result<Self> {
        let url: AMQPUri = url.parse().map_err(io::Error::other)?;
        let (authority, user) = (&url.authority, &url.authority.userinfo);
        let mut this = Self(TcpStream::connect((authority.host.as_str(), authority.port)).await?);
        // A message is several writes: each would wait for the acknowledgement of the last.
        this.0.set_nodelay(true)?;
        this.0.write_all(b"AMQP\0\0\x09\x01").await?;
        this.wait_for(START).await?;
        let answer = format!("\0{}\0{}", user.username, user.password);
        let start = [long(b""), short(b"PLAIN"), long(answer.as_bytes()), short(b"en_US")].concat();
        this.send(0, START_OK, &start).await?;
        let limits = this.wait_for(TUNE).await?;
        // Channels and frame size as offered by the broker; no heartbeat.
        this.send(0, TUNE_OK, &[&limits[..6], &[0, 0]].concat()).await?;
        this.send(0, OPEN, &[short(url.vhost.as_bytes()), short(b""), vec![0]].concat()).await?;
        this.wait_for(OPEN_OK).await?;
        this.send(1, CHANNEL_OPEN, &short(b"")).await?;
        this.wait_for(CHANNEL_OPEN_OK).await?;
        this.send(1, CONFIRM_SELECT, &[0]).await?;
        this.wait_for(CONFIRM_SELECT_OK).await?;
        Ok(this)
    }

    /// Publishes a message and waits for the confirm.
    ///
    /// # Errors
    /// If the broker does not ack the message.
    pub async fn publish(&mut self, message: &Message) -> io::Result<()> {
        let way = [vec![0, 0], short(message.exchange.as_bytes()), short(&message.routing_key), vec![0]];
        self.send(1, PUBLISH, &way.concat()).await?;
        self.write(HEADER, 1, &message.header()).await?;
        for part in message.body.chunks(MAX_PAYLOAD) {
            self.write(BODY, 1, part).await?;
        }
        self.wait_for(ACK).await.map(drop)
    }

    async fn send(&mut self, channel: u16, method: Method, arguments: &[u8]) -> io::Result<()> {
        let [class, method] = method.map(u16::to_be_bytes);
        self.write(METHOD, channel, &[&class, &method, arguments].concat()).await
    }

    async fn write(&mut self, kind: u8, channel: u16, payload: &[u8]) -> io::Result<()> {
        let [size, channel] = [long(payload), channel.to_be_bytes().to_vec()];
        self.0.write_all(&[&[kind][..], &channel, &size, &[FRAME_END]].concat()).await
    }

    /// Reads up to the next method frame and returns the method's arguments. Fails if the method is not `expected`.
    async fn wait_for(&mut self, expected: Method) -> io::Result<Vec<u8>> {
        loop {
            let kind = self.0.read_u8().await?;
            let _channel = self.0.read_u16().await?;
            let mut payload = vec![0; self.0.read_u32().await? as usize];
            self.0.read_exact(&mut payload).await?;
            self.0.read_u8().await?;
            let method = expected.map(u16::to_be_bytes).concat();
            match payload.strip_prefix(method.as_slice()) {
                Some(arguments) if kind == METHOD => return Ok(arguments.to_vec()),
                _ if kind == METHOD => {
                    let text = String::from_utf8_lossy(&payload).into_owned();
                    return Err(io::Error::other(format!("expected the method {expected:?}, got the frame {text:?}")));
                }
                _ => {}
            }
        }
    }
}

/// A header with a text value.
pub fn header(name: &[u8], value: &str) -> Vec<u8> {
    [short(name), vec![b'S'], long(value.as_bytes())].concat()
}

/// A header named `deep` with `depth` nested lists as the value.
pub fn nested_header(depth: usize) -> Vec<u8> {
    // Each list begins with a type and the size of the inner lists: five bytes.
    let lists = (0..depth).rev().flat_map(|within| [&[b'A'][..], &(5 * within as u32).to_be_bytes()].concat());
    short(b"deep").into_iter().chain(lists).collect()
}

/// A short string.
fn short(bytes: &[u8]) -> Vec<u8> {
    [&[bytes.len() as u8], bytes].concat()
}

/// A long string, or a table of encoded entries.
fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}
