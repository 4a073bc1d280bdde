import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.Map;

/** Publishes an event to Fanfare with RabbitMQ's Java client, and waits for the confirm. */
public class Publish {
    private static final int TRY_TIMEOUT = 10_000;
    private static final long MAX_BACKOFF = 10_000;

    public static void main(String[] arguments) throws Exception {
        Map<String, String> environment = System.getenv();
        String broker = environment.get("BROKER");
        String exchange = environment.get("EXCHANGE");
        String application = environment.get("APPLICATION");
        if (arguments.length != 3 || broker == null || exchange == null || application == null) {
            System.err.println("usage: java Publish <type> <id> <data as JSON>, "
                + "with BROKER, EXCHANGE and APPLICATION set");
            System.exit(2);
        }
        long seconds = Long.parseLong(environment.getOrDefault("GIVE_UP_AFTER", "60"));
        String routingKey = application + "." + arguments[0];
        String id = arguments[1];
        // A program prints the body with its JSON library. A body that is not JSON is confirmed, and parked.
        byte[] body = ("{\"data\": " + arguments[2] + "}").getBytes(StandardCharsets.UTF_8);

        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(broker);
        factory.setConnectionTimeout(TRY_TIMEOUT);
        factory.setHandshakeTimeout(TRY_TIMEOUT);
        factory.setChannelRpcTimeout(TRY_TIMEOUT);
        factory.setAutomaticRecoveryEnabled(false);

        Instant deadline = Instant.now().plusSeconds(seconds);
        for (long backoff = 500; ; backoff = Math.min(2 * backoff, MAX_BACKOFF)) {
            try {
                publishOnce(factory, exchange, routingKey, id, body);
                break;
            } catch (Exception error) {
                if (!Instant.now().plusMillis(backoff).isBefore(deadline)) {
                    System.err.println(id + " is not confirmed: " + reason(error)
                        + ". Publish again later, under the same id.");
                    System.exit(1);
                }
                // The same id again: Fanfare recognises an event that did arrive.
                System.err.println(reason(error) + "; next try in " + Duration.ofMillis(backoff));
                Thread.sleep(backoff);
            }
        }
        System.out.println("confirmed " + id);
    }

    /** Connects, publishes and waits for the confirm. A service keeps connection and channel for further events. */
    private static void publishOnce(
            ConnectionFactory factory, String exchange, String routingKey, String id, byte[] body) throws Exception {
        Connection connection = factory.newConnection();
        try {
            Channel channel = connection.createChannel();
            channel.confirmSelect();
            AMQP.BasicProperties properties = new AMQP.BasicProperties.Builder()
                .messageId(id)
                .deliveryMode(2)
                .contentType("application/json")
                .build();
            channel.basicPublish(exchange, routingKey, properties, body);
            // Throws after a timeout, and when channel or connection end.
            if (!channel.waitForConfirms(TRY_TIMEOUT)) {
                throw new IOException("the broker refused the message");
            }
        } finally {
            connection.abort(1_000);
        }
    }

    /** The innermost cause: the client wraps the broker's answer. */
    private static Throwable reason(Throwable error) {
        return error.getCause() == null ? error : reason(error.getCause());
    }
}
