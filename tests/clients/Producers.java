import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.errors.RecordTooLargeException;

/** Producing: compression, size, order, transactions, fencing. */
final class Producers {
    private static final String ALL = "read_uncommitted";
    private static final String DECIDED = "read_committed";

    static void register() {
        Suite.check("every-compression", Producers::everyCompression);
        Suite.check("large-messages", Producers::largeMessages);
        Suite.check("order-with-many-in-flight", Producers::order);
        Suite.check("transactions", Producers::transactions);
        Suite.check("offsets-in-a-transaction", Producers::offsetsInATransaction);
        Suite.check("a-newer-producer-fences", Producers::fencing);
        Suite.check("a-transaction-left-open-ends-by-itself", Producers::timeOut);
    }

    private static void everyCompression(Suite.Place place) throws Exception {
        Clients.topic(place, place.topic(), 1, Map.of());
        List<String> expected = new ArrayList<>();
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            try (var producer = Clients.producer(place, Map.of("compression.type", codec, "linger.ms", 50))) {
                for (int i = 0; i < 300; i++) {
                    String value = codec + " " + i + " " + "x".repeat(i);
                    var record = new ProducerRecord<>(place.topic(), codec + i, value);
                    record.headers().add("h", codec.getBytes(StandardCharsets.UTF_8)).add("empty", null);
                    producer.send(record);
                    expected.add(value);
                }
            }
        }
        List<ConsumerRecord<String, String>> found = Clients.all(place, place.topic(), 0, ALL);
        Suite.equal(found.stream().map(ConsumerRecord::value).toList(), expected, "values");
        for (ConsumerRecord<String, String> record : found) {
            String codec = new String(record.headers().lastHeader("h").value(), StandardCharsets.UTF_8);
            Suite.holds(record.value().startsWith(codec), "header of " + record.key());
            Suite.holds(record.headers().lastHeader("empty").value() == null, "a null header");
        }
    }

    private static void largeMessages(Suite.Place place) throws Exception {
        Clients.topic(place, place.topic(), 1, Map.of("max.message.bytes", "9000000"));
        Map<String, Object> settings = Map.of("max.request.size", 30_000_000, "buffer.memory", 60_000_000L);
        String fits = "f".repeat(8_900_000);
        try (var producer = Clients.producer(place, settings)) {
            producer.send(new ProducerRecord<>(place.topic(), "k", fits)).get();
            Throwable refusal = Clients.refusal(
                    p -> producer.send(new ProducerRecord<>(p.topic(), "k", fits + "f".repeat(200_000))).get(), place);
            Suite.holds(refusal instanceof RecordTooLargeException, "refused with " + refusal);
            producer.send(new ProducerRecord<>(place.topic(), "k", "after")).get();
        }
        Suite.equal(Clients.values(place, place.topic(), ALL), List.of(fits, "after"), "values");
    }

    private static void order(Suite.Place place) throws Exception {
        Clients.topic(place, place.topic(), 1, Map.of());
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        int count = 20_000;
        try (var producer = Clients.producer(place, Map.of("batch.size", 1_000, "linger.ms", 0))) {
            for (int i = 0; i < count; i++) {
                sent.add(producer.send(new ProducerRecord<>(place.topic(), null, "" + i)));
            }
        }
        for (int i = 0; i < count; i++) {
            Suite.equal(sent.get(i).get().offset(), (long) i, "offset");
        }
        List<String> found = Clients.values(place, place.topic(), ALL);
        for (int i = 0; i < count; i++) {
            Suite.equal(found.get(i), "" + i, "value at " + i);
        }
        Suite.equal(found.size(), count, "records");
    }

    private static void transactions(Suite.Place place) throws Exception {
        Clients.topic(place, place.topic(), 1, Map.of());
        try (var producer = Clients.transactional(place, place.name(), 60_000)) {
            String[] ends = {"commit", "abort", "commit", "abort"};
            for (int i = 0; i < ends.length; i++) {
                producer.beginTransaction();
                producer.send(new ProducerRecord<>(place.topic(), "k", ends[i] + i));
                if (ends[i].equals("commit")) {
                    producer.commitTransaction();
                } else {
                    producer.flush();
                    producer.abortTransaction();
                }
            }
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(place.topic(), "k", "open")).get();
            Clients.send(place, place.topic(), 0, 1);
            Suite.equal(Clients.values(place, place.topic(), DECIDED), List.of("commit0", "commit2"), "before the open one");
            Suite.equal(
                    Clients.values(place, place.topic(), ALL),
                    List.of("commit0", "abort1", "commit2", "abort3", "open", "v0"),
                    "undecided ones too");
            producer.commitTransaction();
        }
        Suite.until("the commit is seen", () -> Clients.values(place, place.topic(), DECIDED)
                .equals(List.of("commit0", "commit2", "open", "v0")));
    }

    private static void offsetsInATransaction(Suite.Place place) throws Exception {
        Clients.topic(place, place.topic(), 1, Map.of());
        Clients.topic(place, place.other(), 1, Map.of());
        Clients.send(place, place.topic(), 0, 10);
        TopicPartition at = new TopicPartition(place.topic(), 0);
        Map<String, Object> reading = Map.of("group.id", place.group(), "isolation.level", DECIDED);
        try (var producer = Clients.transactional(place, place.name(), 60_000);
                KafkaConsumer<String, String> consumer = Clients.consumer(place, reading)) {
            consumer.subscribe(List.of(place.topic()));
            List<ConsumerRecord<String, String>> read = new ArrayList<>();
            Suite.until("ten records are read", () -> {
                consumer.poll(Duration.ofMillis(100)).forEach(read::add);
                return read.size() >= 10;
            });
            for (boolean commit : new boolean[] {false, true}) {
                producer.beginTransaction();
                read.forEach(record -> producer.send(new ProducerRecord<>(place.other(), record.key(), record.value())));
                long next = commit ? 10 : 7;
                producer.sendOffsetsToTransaction(Map.of(at, new OffsetAndMetadata(next)), consumer.groupMetadata());
                if (commit) {
                    producer.commitTransaction();
                } else {
                    producer.abortTransaction();
                    Suite.holds(consumer.committed(java.util.Set.of(at)).get(at) == null, "an aborted offset counts");
                }
            }
            Suite.equal(consumer.committed(java.util.Set.of(at)).get(at).offset(), 10L, "committed offset");
        }
        Suite.equal(Clients.values(place, place.other(), DECIDED).size(), 10, "copies");
    }

    private static void fencing(Suite.Place place) throws Exception {
        Clients.topic(place, place.topic(), 1, Map.of());
        try (var old = Clients.transactional(place, place.name(), 60_000)) {
            old.beginTransaction();
            old.send(new ProducerRecord<>(place.topic(), "k", "of the old one")).get();
            try (var young = Clients.transactional(place, place.name(), 60_000)) {
                young.beginTransaction();
                young.send(new ProducerRecord<>(place.topic(), "k", "of the young one"));
                Throwable refusal = Clients.refusal(p -> {
                    old.send(new ProducerRecord<>(p.topic(), "k", "too late")).get();
                    old.commitTransaction();
                }, place);
                Suite.holds(fenced(refusal), "refused with " + refusal);
                young.commitTransaction();
            }
            old.close(Duration.ZERO);
        }
        Suite.equal(Clients.values(place, place.topic(), DECIDED), List.of("of the young one"), "values");
    }

    private static boolean fenced(Throwable refusal) {
        for (Throwable cause = refusal; cause != null; cause = cause.getCause()) {
            if (cause instanceof ProducerFencedException || cause instanceof InvalidProducerEpochException) {
                return true;
            }
        }
        return false;
    }

    private static void timeOut(Suite.Place place) throws Exception {
        Clients.topic(place, place.topic(), 1, Map.of());
        KafkaProducer<String, String> producer = Clients.transactional(place, place.name(), 1_000);
        producer.beginTransaction();
        producer.send(new ProducerRecord<>(place.topic(), "k", "left open")).get();
        Clients.send(place, place.topic(), 0, 1);
        Suite.until("readers get past it", () -> Clients.values(place, place.topic(), DECIDED).equals(List.of("v0")));
        Clients.refusal(p -> producer.commitTransaction(), place);
        producer.close(Duration.ZERO);
        Suite.equal(Clients.values(place, place.topic(), DECIDED), List.of("v0"), "values");
    }

    private Producers() {}
}
