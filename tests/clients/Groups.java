import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;

/** Consumer groups: sharing out, taking over, offsets. */
final class Groups {
    static void register() {
        Suite.check("range-groups-share-and-take-over", place -> shareAndTakeOver(place, "RangeAssignor"));
        Suite.check("cooperative-groups-share-and-take-over", place -> shareAndTakeOver(place, "CooperativeStickyAssignor"));
        Suite.check("a-static-member-keeps-its-share", Groups::staticMember);
        Suite.check("a-member-that-stopped-polling-cannot-commit", Groups::lateCommit);
        Suite.check("offsets-are-resumed", Groups::resume);
    }

    /** A consumer polled by a thread of its own. */
    private static final class Member implements AutoCloseable {
        final Set<TopicPartition> share = new TreeSet<>(
                (a, b) -> a.topic().equals(b.topic()) ? a.partition() - b.partition() : a.topic().compareTo(b.topic()));
        final List<String> read = new ArrayList<>();
        private final AtomicBoolean stop = new AtomicBoolean();
        private final Thread thread;

        Member(Suite.Place place, Map<String, Object> more) {
            Map<String, Object> settings = new HashMap<>(Map.of(
                    "group.id", place.group(), "session.timeout.ms", 6_000, "heartbeat.interval.ms", 200,
                    "metadata.max.age.ms", 500));
            settings.putAll(more);
            thread = new Thread(() -> {
                try (KafkaConsumer<String, String> consumer = Clients.consumer(place, settings)) {
                    consumer.subscribe(List.of(place.topic()));
                    while (!stop.get()) {
                        var records = consumer.poll(Duration.ofMillis(50));
                        synchronized (this) {
                            records.forEach(record -> read.add(record.value()));
                            share.clear();
                            share.addAll(consumer.assignment());
                        }
                        if (!records.isEmpty()) {
                            try {
                                consumer.commitSync();
                            } catch (CommitFailedException | org.apache.kafka.common.errors.RebalanceInProgressException e) {
                                // The next owner reads them again.
                            }
                        }
                    }
                }
            });
            thread.start();
        }

        synchronized int parts() {
            return share.size();
        }

        synchronized Set<TopicPartition> has() {
            return Set.copyOf(share);
        }

        synchronized Set<String> values() {
            return new TreeSet<>(read);
        }

        @Override
        public void close() throws InterruptedException {
            stop.set(true);
            thread.join();
        }
    }

    private static void shareAndTakeOver(Suite.Place place, String assignor) throws Exception {
        Clients.topic(place, place.topic(), 4, Map.of());
        Map<String, Object> settings =
                Map.of("partition.assignment.strategy", "org.apache.kafka.clients.consumer." + assignor);
        try (Member one = new Member(place, settings)) {
            Suite.until("one has all", () -> one.parts() == 4);
            Set<String> before;
            try (Member two = new Member(place, settings)) {
                Suite.until("both have half", () -> one.parts() == 2 && two.parts() == 2);
                Clients.send(place, place.topic(), 0, 200);
                Suite.until("all are read", () -> {
                    Set<String> read = new TreeSet<>(one.values());
                    read.addAll(two.values());
                    return read.size() == 200;
                });
                before = two.values();
            }
            Suite.until("one has all again", () -> one.parts() == 4);
            Clients.send(place, place.topic(), 200, 300);
            Suite.until("the rest is read", () -> {
                Set<String> read = new TreeSet<>(one.values());
                read.addAll(before);
                return read.size() == 300;
            });
        }
    }

    private static void staticMember(Suite.Place place) throws Exception {
        Clients.topic(place, place.topic(), 4, Map.of());
        try (Member one = new Member(place, Map.of("group.instance.id", "one", "session.timeout.ms", 45_000))) {
            Set<TopicPartition> had;
            try (Member two = new Member(place, Map.of("group.instance.id", "two", "session.timeout.ms", 45_000))) {
                Suite.until("both have half", () -> one.parts() == 2 && two.parts() == 2);
                had = two.has();
            }
            try (Member again = new Member(place, Map.of("group.instance.id", "two", "session.timeout.ms", 45_000))) {
                Suite.until("it has its share again", () -> again.has().equals(had));
                Suite.equal(one.parts(), 2, "partitions of the other");
            }
        }
    }

    private static void lateCommit(Suite.Place place) throws Exception {
        Clients.topic(place, place.topic(), 1, Map.of());
        Clients.send(place, place.topic(), 0, 1);
        Map<String, Object> slow = Map.of("group.id", place.group(), "max.poll.interval.ms", 1_000, "heartbeat.interval.ms", 200);
        try (KafkaConsumer<String, String> late = Clients.consumer(place, slow)) {
            late.subscribe(List.of(place.topic()));
            Suite.until("it has read", () -> !late.poll(Duration.ofMillis(50)).isEmpty());
            try (Member other = new Member(place, Map.of())) {
                Suite.until("the other has taken over", () -> other.parts() == 1);
                Throwable refusal = Clients.refusal(p -> late.commitSync(), place);
                Suite.holds(refusal instanceof CommitFailedException, "refused with " + refusal);
            }
        }
    }

    private static void resume(Suite.Place place) throws Exception {
        Clients.topic(place, place.topic(), 1, Map.of());
        Clients.send(place, place.topic(), 0, 10);
        TopicPartition at = new TopicPartition(place.topic(), 0);
        Map<String, Object> settings = Map.of("group.id", place.group(), "max.poll.records", 4);
        try (KafkaConsumer<String, String> first = Clients.consumer(place, settings)) {
            first.assign(List.of(at));
            Suite.until("four are read", () -> first.poll(Duration.ofMillis(50)).count() == 4);
            first.commitSync(Map.of(at, new OffsetAndMetadata(4, "a note")));
            Suite.equal(first.committed(Set.of(at)).get(at).metadata(), "a note", "metadata");
        }
        try (KafkaConsumer<String, String> second = Clients.consumer(place, settings)) {
            second.assign(List.of(at));
            List<String> read = new ArrayList<>();
            Suite.until("the rest is read", () -> {
                second.poll(Duration.ofMillis(50)).forEach(record -> read.add(record.value()));
                return read.size() >= 6;
            });
            Suite.equal(read, List.of("v4", "v5", "v6", "v7", "v8", "v9"), "values");
        }
    }

    private Groups() {}
}
