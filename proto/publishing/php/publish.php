<?php
// Publishes an event to Fanfare with php-amqplib, and waits for the confirm.

require __DIR__ . '/vendor/autoload.php';

use PhpAmqpLib\Connection\AMQPConnectionConfig;
use PhpAmqpLib\Connection\AMQPConnectionFactory;
use PhpAmqpLib\Message\AMQPMessage;

const TRY_TIMEOUT = 10.0;
const MAX_BACKOFF = 10.0;

[$broker, $exchange, $application] = array_map('getenv', ['BROKER', 'EXCHANGE', 'APPLICATION']);
if ($argc !== 4 || !$broker || !$exchange || !$application) {
    fwrite(STDERR, "usage: php publish.php <type> <id> <data as JSON>, with BROKER, EXCHANGE and APPLICATION set\n");
    exit(2);
}
[, $type, $id, $data] = $argv;
$body = json_encode(['data' => json_decode($data, flags: JSON_THROW_ON_ERROR)], JSON_THROW_ON_ERROR);
$giveUpAfter = (float) (getenv('GIVE_UP_AFTER') ?: 60);

$url = parse_url($broker);
$config = new AMQPConnectionConfig();
$config->setHost($url['host']);
$config->setIsSecure($url['scheme'] === 'amqps');
$config->setPort($url['port'] ?? ($url['scheme'] === 'amqps' ? 5671 : 5672));
$config->setUser(rawurldecode($url['user'] ?? 'guest'));
$config->setPassword(rawurldecode($url['pass'] ?? 'guest'));
$config->setVhost(rawurldecode(substr($url['path'] ?? '', 1)) ?: '/');
$config->setConnectionTimeout(TRY_TIMEOUT);
$config->setReadTimeout(TRY_TIMEOUT);
$config->setWriteTimeout(TRY_TIMEOUT);
$config->setChannelRPCTimeout(TRY_TIMEOUT);

// Connects, publishes and waits for the confirm. A service keeps connection and channel for further events.
$publishOnce = function () use ($config, $exchange, $application, $type, $id, $body): void {
    $connection = AMQPConnectionFactory::create($config);
    try {
        $channel = $connection->channel();
        $channel->confirm_select();
        $acked = false;
        $channel->set_ack_handler(function () use (&$acked): void {
            $acked = true;
        });
        $message = new AMQPMessage($body, [
            'message_id' => $id,
            'delivery_mode' => AMQPMessage::DELIVERY_MODE_PERSISTENT,
            'content_type' => 'application/json',
        ]);
        $channel->basic_publish($message, $exchange, "$application.$type");
        // Throws after a timeout, and when channel or connection end. Returns after an ack or a nack.
        $channel->wait_for_pending_acks(TRY_TIMEOUT);
        if (!$acked) {
            throw new RuntimeException('the broker refused the message');
        }
    } catch (Throwable $error) {
        // Without a farewell, which a silent broker would not answer.
        $connection->getIO()->close();
        throw $error;
    }
    try {
        $connection->close();
    } catch (Throwable) {
        // The event is published, even if closing fails.
    }
};

$deadline = microtime(true) + $giveUpAfter;
for ($backoff = 0.5; ; $backoff = min(2 * $backoff, MAX_BACKOFF)) {
    try {
        $publishOnce();
        break;
    } catch (Throwable $error) {
        if (microtime(true) + $backoff >= $deadline) {
            fwrite(STDERR, "$id is not confirmed: {$error->getMessage()}. Publish again later, under the same id.\n");
            exit(1);
        }
        // The same id again: Fanfare recognises an event that did arrive.
        fwrite(STDERR, "{$error->getMessage()}; next try in $backoff s\n");
        usleep((int) ($backoff * 1e6));
    }
}
echo "confirmed $id\n";
