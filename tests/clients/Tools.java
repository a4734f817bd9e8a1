import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.utils.Exit;

/** Kafka's own command-line tools, as their scripts start them, in this process. */
final class Tools {
    static void register() {
        Suite.check("kafka-topics", Tools::topics);
        Suite.check("kafka-console-producer-and-consumer", Tools::console);
        Suite.check("kafka-consumer-groups", Tools::groups);
        Suite.check("kafka-configs", Tools::configs);
        Suite.check("kafka-get-offsets-and-delete-records", Tools::offsets);
        Suite.check("kafka-transactions", Tools::transactions);
        Suite.check("kafka-producer-and-consumer-perf-test", Tools::perf);
        Suite.check("kafka-broker-api-versions-and-cluster", Tools::cluster);
        Suite.check("kafka-log-dirs", Tools::logDirs);
    }

    private static final class Ended extends RuntimeException {}

    /** Runs a tool with {@code --bootstrap-server}; gives what it printed. */
    private static String tool(Suite.Place place, String main, String... arguments) throws Exception {
        List<String> all = new ArrayList<>(List.of("--bootstrap-server", place.brokers()));
        all.addAll(List.of(arguments));
        return run(main, "", all);
    }

    private static String run(String main, String input, List<String> arguments) throws Exception {
        PrintStream out = System.out;
        PrintStream err = System.err;
        InputStream in = System.in;
        ByteArrayOutputStream said = new ByteArrayOutputStream();
        PrintStream tapped = new PrintStream(said, true, StandardCharsets.UTF_8);
        // Tools catch what ends them, and end once more.
        AtomicReference<Integer> first = new AtomicReference<>();
        Exit.Procedure end = (status, message) -> {
            first.compareAndSet(null, status);
            throw new Ended();
        };
        Exit.setExitProcedure(end);
        Exit.setHaltProcedure(end);
        // Each tool would leave a hook behind.
        Exit.setShutdownHookAdder((name, hook) -> {});
        System.setOut(tapped);
        System.setErr(tapped);
        System.setIn(new ByteArrayInputStream(input.getBytes(StandardCharsets.UTF_8)));
        try {
            Class.forName(main).getMethod("main", String[].class).invoke(null, (Object) arguments.toArray(new String[0]));
        } catch (InvocationTargetException thrown) {
            if (first.get() == null) {
                throw new AssertionError(main + arguments + ": " + said.toString(StandardCharsets.UTF_8), thrown.getCause());
            }
        } finally {
            System.setOut(out);
            System.setErr(err);
            System.setIn(in);
        }
        String text = said.toString(StandardCharsets.UTF_8);
        int status = first.get() == null ? 0 : first.get();
        Suite.holds(status == 0, main + arguments + " ended with " + status + ": " + text);
        return text;
    }

    private static void says(String text, String... parts) {
        for (String part : parts) {
            Suite.holds(text.contains(part), "'" + part + "' is missing in: " + text);
        }
    }

    private static final String TOPICS = "org.apache.kafka.tools.TopicCommand";
    private static final String GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
    private static final String CONFIGS = "kafka.admin.ConfigCommand";

    private static void topics(Suite.Place place) throws Exception {
        tool(place, TOPICS, "--create", "--topic", place.topic(), "--partitions", "3", "--config", "segment.bytes=1048576");
        try (Admin admin = Clients.admin(place)) {
            Clients.known(admin, place.topic());
        }
        says(tool(place, TOPICS, "--list"), place.topic());
        says(tool(place, TOPICS, "--describe", "--topic", place.topic()), "PartitionCount: 3", "segment.bytes=1048576");
        tool(place, TOPICS, "--alter", "--topic", place.topic(), "--partitions", "4");
        Suite.until("four partitions", () ->
                tool(place, TOPICS, "--describe", "--topic", place.topic()).contains("PartitionCount: 4"));
        tool(place, TOPICS, "--delete", "--topic", place.topic());
        Suite.until("it is gone", () -> !tool(place, TOPICS, "--list").lines().toList().contains(place.topic()));
    }

    private static void console(Suite.Place place) throws Exception {
        Clients.topic(place, place.topic(), 1, Map.of());
        run("org.apache.kafka.tools.ConsoleProducer", "a:1\nb:2\nc:3\n", List.of(
                "--bootstrap-server", place.brokers(), "--topic", place.topic(),
                "--property", "parse.key=true", "--property", "key.separator=:"));
        String read = tool(place, "org.apache.kafka.tools.consumer.ConsoleConsumer", "--topic", place.topic(),
                "--from-beginning", "--max-messages", "3", "--timeout-ms", "60000",
                "--property", "print.key=true", "--property", "key.separator=:");
        says(read, "a:1", "b:2", "c:3", "Processed a total of 3 messages");
    }

    private static void groups(Suite.Place place) throws Exception {
        Clients.topic(place, place.topic(), 1, Map.of());
        Clients.send(place, place.topic(), 0, 10);
        String group = place.group();
        tool(place, "org.apache.kafka.tools.consumer.ConsoleConsumer", "--topic", place.topic(), "--group", group,
                "--from-beginning", "--max-messages", "4", "--timeout-ms", "60000");
        says(tool(place, GROUPS, "--list"), group);
        says(tool(place, GROUPS, "--describe", "--group", group), place.topic(), "CURRENT-OFFSET");
        says(tool(place, GROUPS, "--describe", "--group", group, "--state"), "Empty");
        Suite.until("the group is empty", () ->
                tool(place, GROUPS, "--describe", "--group", group, "--state").contains("Empty"));
        says(tool(place, GROUPS, "--reset-offsets", "--group", group, "--topic", place.topic(), "--to-offset", "2",
                "--execute"), place.topic());
        String line = tool(place, GROUPS, "--describe", "--group", group).lines()
                .filter(text -> text.contains(" " + place.topic() + " ")).findFirst().orElse("");
        Suite.equal(List.of(line.trim().split(" +")).subList(3, 6), List.of("2", "10", "8"), "offset, end and lag");
        says(tool(place, GROUPS, "--delete", "--group", group), "successful");
    }

    private static void configs(Suite.Place place) throws Exception {
        Clients.topic(place, place.topic(), 1, Map.of());
        tool(place, CONFIGS, "--alter", "--entity-type", "topics", "--entity-name", place.topic(),
                "--add-config", "retention.ms=7200000");
        Suite.until("the setting is there", () ->
                tool(place, CONFIGS, "--describe", "--entity-type", "topics", "--entity-name", place.topic())
                        .contains("retention.ms=7200000"));
        tool(place, CONFIGS, "--alter", "--entity-type", "topics", "--entity-name", place.topic(),
                "--delete-config", "retention.ms");
    }

    private static void offsets(Suite.Place place) throws Exception {
        Clients.topic(place, place.topic(), 2, Map.of());
        Clients.send(place, place.topic(), 0, 100);
        String told = tool(place, "org.apache.kafka.tools.GetOffsetShell", "--topic", place.topic());
        int records = told.lines().filter(line -> line.startsWith(place.topic()))
                .mapToInt(line -> Integer.parseInt(line.split(":")[2])).sum();
        Suite.equal(records, 100, "ends in " + told);
        Path file = Files.createTempFile("suite", ".json");
        Files.writeString(file, "{\"partitions\":[{\"topic\":\"" + place.topic()
                + "\",\"partition\":0,\"offset\":1}],\"version\":1}");
        says(tool(place, "org.apache.kafka.tools.DeleteRecordsCommand", "--offset-json-file", file.toString()),
                "low_watermark: 1");
        Files.delete(file);
        says(tool(place, "org.apache.kafka.tools.GetOffsetShell", "--topic", place.topic(), "--time", "earliest"),
                place.topic() + ":0:1");
    }

    private static void transactions(Suite.Place place) throws Exception {
        Clients.topic(place, place.topic(), 1, Map.of());
        String main = "org.apache.kafka.tools.TransactionsCommand";
        try (var producer = Clients.transactional(place, place.name(), 60_000)) {
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(place.topic(), "k", "open")).get();
            says(tool(place, main, "list"), place.name(), "Ongoing");
            says(tool(place, main, "describe", "--transactional-id", place.name()), place.topic() + "-0");
            says(tool(place, main, "describe-producers", "--topic", place.topic(), "--partition", "0"), "ProducerId");
            tool(place, main, "abort", "--topic", place.topic(), "--partition", "0", "--start-offset", "0");
            Clients.send(place, place.topic(), 0, 1);
            Suite.equal(Clients.values(place, place.topic(), "read_committed"), List.of("v0"), "the aborted one's are left out");
            producer.abortTransaction();
        }
    }

    private static void perf(Suite.Place place) throws Exception {
        Clients.topic(place, place.topic(), 1, Map.of());
        says(run("org.apache.kafka.tools.ProducerPerformance", "", List.of(
                "--topic", place.topic(), "--num-records", "20000", "--record-size", "200", "--throughput", "-1",
                "--producer-props", "bootstrap.servers=" + place.brokers(), "compression.type=lz4", "acks=all")),
                "20000 records sent");
        says(tool(place, "org.apache.kafka.tools.ConsumerPerformance", "--topic", place.topic(), "--messages", "20000",
                "--timeout", "60000"), "nMsg.sec");
    }

    private static void cluster(Suite.Place place) throws Exception {
        says(tool(place, "org.apache.kafka.tools.BrokerApiVersionsCommand"), "Produce(0)", "Fetch(1)", "AddOffsetsToTxn(25)");
        says(run("org.apache.kafka.tools.ClusterTool", "", List.of("cluster-id", "--bootstrap-server", place.brokers())),
                "Cluster ID");
    }

    private static void logDirs(Suite.Place place) throws Exception {
        Clients.topic(place, place.topic(), 1, Map.of());
        Clients.send(place, place.topic(), 0, 10);
        says(tool(place, "org.apache.kafka.tools.LogDirsCommand", "--describe", "--topic-list", place.topic()),
                place.topic() + "-0", "\"size\"");
    }

    private Tools() {}
}
