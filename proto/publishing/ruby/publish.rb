# Publishes an event to Fanfare with bunny, and waits for the confirm.
require 'bunny'
require 'json'
require 'timeout'

TRY_TIMEOUT = 10
MAX_BACKOFF = 10

broker, exchange, application = ENV.values_at('BROKER', 'EXCHANGE', 'APPLICATION')
type, id, data = ARGV
unless ARGV.size == 3 && broker && exchange && application
  warn 'usage: ruby publish.rb <type> <id> <data as JSON>, with BROKER, EXCHANGE and APPLICATION set'
  exit 2
end
body = JSON.generate(data: JSON.parse(data))
give_up_after = Float(ENV.fetch('GIVE_UP_AFTER', '60'))

# Connects, publishes and waits for the confirm. A service keeps connection and channel for further events.
publish_once = lambda do
  # Recovery is off: each try of this program connects anew.
  connection = Bunny.new(broker, automatically_recover: false, connection_timeout: TRY_TIMEOUT, log_level: :fatal)
  begin
    Timeout.timeout(TRY_TIMEOUT) do
      connection.start
      channel = connection.create_channel
      channel.confirm_select
      channel.basic_publish(body, exchange, "#{application}.#{type}",
                            message_id: id, persistent: true, content_type: 'application/json')
      # `wait_for_confirms` alone would not notice that the broker has closed the channel.
      sleep 0.01 while channel.open? && channel.unconfirmed_set.any?
      channel.wait_for_confirms or raise 'the broker refused the message'
    end
  rescue StandardError
    # Without a farewell, which a silent broker would not answer.
    connection.close_transport
    raise
  end
  begin
    connection.close
  rescue StandardError
    # The event is published, even if closing fails.
  end
end

now = -> { Process.clock_gettime(Process::CLOCK_MONOTONIC) }
deadline = now.call + give_up_after
backoff = 0.5
begin
  publish_once.call
rescue StandardError => error
  if now.call + backoff >= deadline
    warn "#{id} is not confirmed: #{error.message}. Publish again later, under the same id."
    exit 1
  end
  # The same id again: Fanfare recognises an event that did arrive.
  warn "#{error.message}; next try in #{backoff} s"
  sleep backoff
  backoff = [2 * backoff, MAX_BACKOFF].min
  retry
end
puts "confirmed #{id}"
