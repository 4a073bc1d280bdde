// Publishes an event to Fanfare with RabbitMQ.Client, and waits for the confirm.
using System.Text.Json.Nodes;
using RabbitMQ.Client;

var tryTimeout = TimeSpan.FromSeconds(10);
var maxBackoff = TimeSpan.FromSeconds(10);

var broker = Environment.GetEnvironmentVariable("BROKER");
var exchange = Environment.GetEnvironmentVariable("EXCHANGE");
var application = Environment.GetEnvironmentVariable("APPLICATION");
if (args is not [var type, var id, var data] || broker is null || exchange is null || application is null)
{
    Console.Error.WriteLine(
        "usage: dotnet run <type> <id> <data as JSON>, with BROKER, EXCHANGE and APPLICATION set");
    return 2;
}
var giveUpAfter = TimeSpan.FromSeconds(int.Parse(Environment.GetEnvironmentVariable("GIVE_UP_AFTER") ?? "60"));
var body = System.Text.Encoding.UTF8.GetBytes(new JsonObject { ["data"] = JsonNode.Parse(data) }.ToJsonString());

// Recovery is off: each try of this program connects anew.
var factory = new ConnectionFactory { Uri = new Uri(broker), AutomaticRecoveryEnabled = false };

// Connects, publishes and waits for the confirm. A service keeps connection and channel for further events.
async Task PublishOnce(string target, string routingKey)
{
    using var timeout = new CancellationTokenSource(tryTimeout);
    await using var connection = await factory.CreateConnectionAsync(timeout.Token);
    var options = new CreateChannelOptions(
        publisherConfirmationsEnabled: true, publisherConfirmationTrackingEnabled: true);
    await using var channel = await connection.CreateChannelAsync(options, timeout.Token);
    var properties = new BasicProperties
    {
        MessageId = id,
        DeliveryMode = DeliveryModes.Persistent,
        ContentType = "application/json",
    };
    // Returns after the confirm. Throws after a nack, a timeout, or the end of channel or connection.
    await channel.BasicPublishAsync(
        target, routingKey, mandatory: false, basicProperties: properties, body: body, timeout.Token);
}

var deadline = DateTime.UtcNow + giveUpAfter;
for (var backoff = TimeSpan.FromSeconds(0.5); ; backoff = backoff * 2 < maxBackoff ? backoff * 2 : maxBackoff)
{
    try
    {
        await PublishOnce(exchange, $"{application}.{type}");
        break;
    }
    catch (Exception error)
    {
        if (DateTime.UtcNow + backoff >= deadline)
        {
            Console.Error.WriteLine($"{id} is not confirmed: {error.Message}. Publish again later, under the same id.");
            return 1;
        }
        // The same id again: Fanfare recognises an event that did arrive.
        Console.Error.WriteLine($"{error.Message}; next try in {backoff}");
        await Task.Delay(backoff);
    }
}
Console.WriteLine($"confirmed {id}");
return 0;
