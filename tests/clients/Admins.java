import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;

/** Administration: topics, settings, offsets, groups, transactions; and what the log does by itself. */
final class Admins {
    static void register() {
        Suite.check("topics", Admins::topics);
        Suite.check("settings", Admins::settings);
        Suite.check("offsets-by-time", Admins::offsetsByTime);
        Suite.check("deleted-records", Admins::deletedRecords);
        Suite.check("groups-and-their-offsets", Admins::groups);
        Suite.check("open-transactions-are-shown-and-aborted", Admins::openTransactions);
        Suite.check("compaction-keeps-the-newest-of-a-key", Admins::compaction);
        Suite.check("retention-removes-what-is-old", Admins::retention);
    }

    private static void topics(Suite.Place place) throws Exception {
        try (Admin admin = Clients.admin(place)) {
            admin.createTopics(List.of(new NewTopic(place.topic(), 2, (short) 1))).all().get();
            refused(TopicExistsException.class, place, p -> admin.createTopics(
                    List.of(new NewTopic(place.topic(), 2, (short) 1))).all().get());
            refused(InvalidTopicException.class, place, p -> admin.createTopics(
                    List.of(new NewTopic("no/such name", 2, (short) 1))).all().get());
            refused(UnknownTopicOrPartitionException.class, place, p -> admin.describeTopics(
                    List.of("suite-nowhere")).allTopicNames().get());
            TopicDescription topic = Clients.known(admin, place.topic());
            Suite.equal(topic.partitions().size(), 2, "partitions");
            Suite.equal(admin.describeTopics(org.apache.kafka.common.TopicCollection.ofTopicIds(List.of(topic.topicId())))
                    .allTopicIds().get().get(topic.topicId()).name(), place.topic(), "name by id");
            admin.createPartitions(Map.of(place.topic(), NewPartitions.increaseTo(5))).all().get();
            refused(InvalidPartitionsException.class, place, p -> admin.createPartitions(
                    Map.of(place.topic(), NewPartitions.increaseTo(3))).all().get());
            Suite.until("five partitions", () -> Clients.known(admin, place.topic()).partitions().size() == 5);
            Suite.holds(admin.listTopics().names().get().contains(place.topic()), "it is listed");
            admin.deleteTopics(List.of(place.topic())).all().get();
            Suite.until("it is gone", () -> !admin.listTopics().names().get().contains(place.topic()));
            admin.createTopics(List.of(new NewTopic(place.topic(), 1, (short) 1))).all().get();
            TopicDescription again = Clients.known(admin, place.topic());
            Suite.holds(!again.topicId().equals(topic.topicId()), "a topic made again has another id");
            Suite.equal(admin.describeCluster().nodes().get().size(), 1, "nodes");
        }
    }

    private static void settings(Suite.Place place) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, place.topic());
        Clients.topic(place, place.topic(), 1, Map.of("retention.ms", "1234567"));
        try (Admin admin = Clients.admin(place)) {
            Suite.equal(setting(admin, resource, "retention.ms").value(), "1234567", "as created");
            alter(admin, resource, new ConfigEntry("cleanup.policy", "compact"), AlterConfigOp.OpType.SET);
            alter(admin, resource, new ConfigEntry("cleanup.policy", "delete"), AlterConfigOp.OpType.APPEND);
            alter(admin, resource, new ConfigEntry("retention.ms", ""), AlterConfigOp.OpType.DELETE);
            Suite.until("the policies are two", () ->
                    Set.of(setting(admin, resource, "cleanup.policy").value().split(",")).equals(Set.of("compact", "delete")));
            Suite.holds(!setting(admin, resource, "retention.ms").value().equals("1234567"), "the default is back");
            refused(InvalidConfigurationException.class, place, p ->
                    alter(admin, resource, new ConfigEntry("cleanup.policy", "perhaps"), AlterConfigOp.OpType.SET));
        }
    }

    private static void alter(Admin admin, ConfigResource of, ConfigEntry entry, AlterConfigOp.OpType how) throws Exception {
        Collection<AlterConfigOp> changes = List.of(new AlterConfigOp(entry, how));
        admin.incrementalAlterConfigs(Map.of(of, changes)).all().get();
    }

    private static ConfigEntry setting(Admin admin, ConfigResource of, String name) throws Exception {
        Config config = admin.describeConfigs(List.of(of)).all().get().get(of);
        return config.get(name);
    }

    private static void offsetsByTime(Suite.Place place) throws Exception {
        // These times are long past.
        Clients.topic(place, place.topic(), 1, Map.of("retention.ms", "-1"));
        long[] times = {1_700_000_000_000L, 1_700_000_001_000L, 1_700_000_005_000L};
        try (var producer = Clients.producer(place, Map.of())) {
            for (long time : times) {
                producer.send(new ProducerRecord<>(place.topic(), 0, time, "k", "at " + time)).get();
            }
        }
        TopicPartition at = new TopicPartition(place.topic(), 0);
        try (var consumer = Clients.consumer(place, Map.of())) {
            Suite.equal(consumer.offsetsForTimes(Map.of(at, times[0] + 1)).get(at).offset(), 1L, "first at or after");
            Suite.equal(consumer.offsetsForTimes(Map.of(at, times[2])).get(at).offset(), 2L, "exactly at");
            Suite.holds(consumer.offsetsForTimes(Map.of(at, times[2] + 1)).get(at) == null, "nothing is later");
        }
        try (Admin admin = Clients.admin(place)) {
            Suite.equal(offset(admin, at, OffsetSpec.earliest()), 0L, "earliest");
            Suite.equal(offset(admin, at, OffsetSpec.latest()), 3L, "latest");
            Suite.equal(offset(admin, at, OffsetSpec.maxTimestamp()), 2L, "newest time");
        }
    }

    private static long offset(Admin admin, TopicPartition at, OffsetSpec which) throws Exception {
        return admin.listOffsets(Map.of(at, which)).all().get().get(at).offset();
    }

    private static void deletedRecords(Suite.Place place) throws Exception {
        Clients.topic(place, place.topic(), 1, Map.of());
        Clients.send(place, place.topic(), 0, 10);
        TopicPartition at = new TopicPartition(place.topic(), 0);
        try (Admin admin = Clients.admin(place)) {
            var done = admin.deleteRecords(Map.of(at, RecordsToDelete.beforeOffset(4))).lowWatermarks().get(at).get();
            Suite.equal(done.lowWatermark(), 4L, "first offset");
            refused(OffsetOutOfRangeException.class, place, p ->
                    admin.deleteRecords(Map.of(at, RecordsToDelete.beforeOffset(11))).all().get());
        }
        Suite.equal(Clients.values(place, place.topic(), "read_committed").get(0), "v4", "first record");
    }

    private static void groups(Suite.Place place) throws Exception {
        Clients.topic(place, place.topic(), 2, Map.of());
        TopicPartition first = new TopicPartition(place.topic(), 0);
        TopicPartition second = new TopicPartition(place.topic(), 1);
        try (Admin admin = Clients.admin(place)) {
            admin.alterConsumerGroupOffsets(place.group(), Map.of(
                    first, new OffsetAndMetadata(3), second, new OffsetAndMetadata(5))).all().get();
            Suite.equal(offsetOf(admin, place, first), 3L, "offset that was set");
            Suite.holds(admin.listConsumerGroups().all().get().stream().anyMatch(g -> g.groupId().equals(place.group())),
                    "the group is listed");
            var group = admin.describeConsumerGroups(List.of(place.group())).all().get().get(place.group());
            Suite.equal(group.members().size(), 0, "members");
            admin.deleteConsumerGroupOffsets(place.group(), Set.of(first)).all().get();
            Suite.holds(offsetOf(admin, place, first) == null, "a deleted offset");
            Suite.equal(offsetOf(admin, place, second), 5L, "the other offset");
            admin.deleteConsumerGroups(List.of(place.group())).all().get();
            refused(GroupIdNotFoundException.class, place, p ->
                    admin.deleteConsumerGroups(List.of(place.group())).all().get());
        }
    }

    private static Long offsetOf(Admin admin, Suite.Place place, TopicPartition at) throws Exception {
        var offsets = admin.listConsumerGroupOffsets(place.group()).partitionsToOffsetAndMetadata().get();
        return offsets.get(at) == null ? null : offsets.get(at).offset();
    }

    private static void openTransactions(Suite.Place place) throws Exception {
        Clients.topic(place, place.topic(), 1, Map.of());
        TopicPartition at = new TopicPartition(place.topic(), 0);
        try (var producer = Clients.transactional(place, place.name(), 60_000); Admin admin = Clients.admin(place)) {
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(place.topic(), "k", "open")).get();
            Suite.holds(admin.listTransactions().all().get().stream().anyMatch(t -> t.transactionalId().equals(place.name())),
                    "it is listed");
            var described = admin.describeTransactions(List.of(place.name())).all().get().get(place.name());
            Suite.equal(described.topicPartitions(), Set.of(at), "its partitions");
            var writers = admin.describeProducers(List.of(at)).all().get().get(at).activeProducers();
            Suite.holds(writers.stream().anyMatch(w -> w.currentTransactionStartOffset().orElse(-1) == 0), "its writer");
            admin.fenceProducers(List.of(place.name())).all().get();
            Clients.refusal(p -> producer.commitTransaction(), place);
            producer.close(java.time.Duration.ZERO);
        }
        Clients.send(place, place.topic(), 0, 1);
        Suite.until("it is aborted", () ->
                Clients.values(place, place.topic(), "read_committed").equals(List.of("v0")));
    }

    private static void compaction(Suite.Place place) throws Exception {
        Clients.topic(place, place.topic(), 1, Map.of(
                "cleanup.policy", "compact", "segment.ms", "200", "min.cleanable.dirty.ratio", "0.01",
                "delete.retention.ms", "100", "min.compaction.lag.ms", "0"));
        int[] round = {0};
        Suite.until("superseded records and tombstones are gone", () -> {
            int now = round[0]++;
            try (var producer = Clients.producer(place, Map.of())) {
                producer.send(new ProducerRecord<>(place.topic(), "a", "a" + now));
                producer.send(new ProducerRecord<>(place.topic(), "gone", now == 0 ? "here" : now == 1 ? null : "x"));
                producer.send(new ProducerRecord<>(place.topic(), now < 5 ? "stays" : "b", "b" + now));
            }
            Thread.sleep(300);
            List<String> stays = Clients.all(place, place.topic(), 0, "read_committed").stream()
                    .filter(record -> record.key().equals("stays")).map(ConsumerRecord::value).toList();
            Suite.holds(stays.contains("b" + Math.min(now, 4)), "the newest is there: " + stays);
            return now > 5 && stays.equals(List.of("b4"));
        });
    }

    private static void retention(Suite.Place place) throws Exception {
        Clients.topic(place, place.topic(), 1, Map.of("retention.ms", "1000", "segment.ms", "200"));
        Clients.send(place, place.topic(), 0, 5);
        TopicPartition at = new TopicPartition(place.topic(), 0);
        try (Admin admin = Clients.admin(place)) {
            Suite.until("the first records are gone", () -> {
                Thread.sleep(300);
                Clients.send(place, place.topic(), 5, 6);
                return offset(admin, at, OffsetSpec.earliest()) >= 5;
            });
        }
    }

    private static void refused(Class<?> kind, Suite.Place place, Suite.Check check) {
        Throwable refusal = Clients.refusal(check, place);
        Suite.holds(kind.isInstance(refusal), "refused with " + refusal + ", expected " + kind.getSimpleName());
    }

    private Admins() {}
}
