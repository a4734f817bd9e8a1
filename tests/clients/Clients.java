import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Clients with short waits, and what checks do with them again and again. */
final class Clients {
    static Admin admin(Suite.Place place) {
        return Admin.create(Map.<String, Object>of("bootstrap.servers", place.brokers()));
    }

    static void topic(Suite.Place place, String name, int partitions, Map<String, String> settings) throws Exception {
        try (Admin admin = admin(place)) {
            admin.createTopics(List.of(new NewTopic(name, partitions, (short) 1).configs(settings))).all().get();
            known(admin, name);
        }
    }

    /** Describes a topic. A broker of Kafka may learn of it a moment after it was made. */
    static TopicDescription known(Admin admin, String name) throws Exception {
        TopicDescription[] found = {null};
        Suite.until(name + " is known", () -> {
            try {
                found[0] = admin.describeTopics(List.of(name)).allTopicNames().get().get(name);
                return true;
            } catch (ExecutionException unknown) {
                return false;
            }
        });
        return found[0];
    }

    static KafkaProducer<String, String> producer(Suite.Place place, Map<String, Object> more) {
        Map<String, Object> settings = new HashMap<>(Map.of(
                "bootstrap.servers", place.brokers(),
                "key.serializer", StringSerializer.class,
                "value.serializer", StringSerializer.class));
        settings.putAll(more);
        return new KafkaProducer<>(settings);
    }

    static KafkaProducer<String, String> transactional(Suite.Place place, String id, int timeoutMs) {
        KafkaProducer<String, String> producer =
                producer(place, Map.of("transactional.id", id, "transaction.timeout.ms", timeoutMs));
        producer.initTransactions();
        return producer;
    }

    static KafkaConsumer<String, String> consumer(Suite.Place place, Map<String, Object> more) {
        Map<String, Object> settings = new HashMap<>(Map.of(
                "bootstrap.servers", place.brokers(),
                "key.deserializer", StringDeserializer.class,
                "value.deserializer", StringDeserializer.class,
                "auto.offset.reset", "earliest",
                "enable.auto.commit", "false"));
        settings.putAll(more);
        return new KafkaConsumer<>(settings);
    }

    static void send(Suite.Place place, String topic, int from, int to) throws Exception {
        try (KafkaProducer<String, String> producer = producer(place, Map.of())) {
            List<Future<?>> sent = new ArrayList<>();
            for (int i = from; i < to; i++) {
                sent.add(producer.send(new ProducerRecord<>(topic, "k" + i, "v" + i)));
            }
            for (Future<?> one : sent) {
                one.get();
            }
        }
    }

    /** All that a partition holds for a reader of that isolation, up to the end that the reader is told. */
    static List<ConsumerRecord<String, String>> all(Suite.Place place, String topic, int partition, String isolation) {
        TopicPartition at = new TopicPartition(topic, partition);
        try (KafkaConsumer<String, String> consumer = consumer(place, Map.of("isolation.level", isolation))) {
            consumer.assign(List.of(at));
            consumer.seekToBeginning(List.of(at));
            long end = consumer.endOffsets(List.of(at)).get(at);
            List<ConsumerRecord<String, String>> records = new ArrayList<>();
            while (consumer.position(at) < end) {
                consumer.poll(Duration.ofMillis(100)).forEach(records::add);
            }
            return records;
        }
    }

    static List<String> values(Suite.Place place, String topic, String isolation) {
        return all(place, topic, 0, isolation).stream().map(ConsumerRecord::value).toList();
    }

    /** The error that an operation ends with. */
    static Throwable refusal(Suite.Check check, Suite.Place place) {
        try {
            check.run(place);
        } catch (ExecutionException wrapped) {
            return wrapped.getCause();
        } catch (Throwable thrown) {
            return thrown;
        }
        throw new AssertionError("it was not refused");
    }

    private Clients() {}
}
