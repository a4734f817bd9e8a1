import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;

/**
 * What a Kafka must do for the Java client and for Kafka's own command-line tools. It runs alike against Kafka and against the embedded
 * log: {@code java Suite [--again] BROKERS [NAME…]}. It prints a line for each check and ends with 1 if one fails. With {@code --again} one
 * that fails has a second attempt: a broker of Kafka may tell for a moment what was true before.
 */
final class Suite {
    /** One check; it throws if what it saw is not what Kafka promises. */
    interface Check {
        void run(Place place) throws Exception;
    }

    record Named(String name, Check check) {}

    /** Where a check runs: the brokers, and names that are its own. */
    record Place(String brokers, String name) {
        String topic() {
            return "suite-" + name;
        }

        String other() {
            return "suite-" + name + "-other";
        }

        String group() {
            return "suite-" + name + "-group";
        }
    }

    private static final List<Named> CHECKS = new ArrayList<>();
    private static final int SECONDS_EACH = 180;

    static void check(String name, Check check) {
        CHECKS.add(new Named(name, check));
    }

    public static void main(String[] arguments) throws Exception {
        Producers.register();
        Groups.register();
        Admins.register();
        Tools.register();
        boolean again = arguments[0].equals("--again");
        String brokers = arguments[again ? 1 : 0];
        List<String> wanted = List.of(arguments).subList(again ? 2 : 1, arguments.length);
        int failures = 0;
        int ran = 0;
        for (Named named : CHECKS) {
            if (!wanted.isEmpty() && !wanted.contains(named.name())) {
                continue;
            }
            ran++;
            boolean passed = passes(named, new Place(brokers, named.name()));
            if (!passed && again) {
                passed = passes(named, new Place(brokers, named.name() + "-again"));
            }
            failures += passed ? 0 : 1;
        }
        System.out.println(ran + " checks, " + failures + " failed");
        System.out.flush();
        // Clients that a failed check left open must not keep the process.
        Runtime.getRuntime().halt(failures == 0 && ran > 0 ? 0 : 1);
    }

    private static boolean passes(Named named, Place place) throws InterruptedException {
        long began = System.nanoTime();
        Throwable[] failure = {null};
        Thread thread = new Thread(() -> {
            try {
                named.check().run(place);
            } catch (Throwable thrown) {
                failure[0] = thrown;
            }
        }, named.name());
        thread.setDaemon(true);
        thread.start();
        thread.join(TimeUnit.SECONDS.toMillis(SECONDS_EACH));
        if (thread.isAlive()) {
            failure[0] = new AssertionError("not done after " + SECONDS_EACH + " s");
            failure[0].setStackTrace(thread.getStackTrace());
        }
        long ms = TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - began);
        System.out.println((failure[0] == null ? "ok      " : "FAILED  ") + named.name() + " (" + ms + " ms)");
        if (failure[0] != null) {
            failure[0].printStackTrace(System.out);
        }
        return failure[0] == null;
    }

    static void equal(Object found, Object expected, String what) {
        if (!expected.equals(found)) {
            throw new AssertionError(what + ": " + found + ", expected " + expected);
        }
    }

    static void holds(boolean condition, String what) {
        if (!condition) {
            throw new AssertionError(what);
        }
    }

    /** Something that becomes true. */
    interface Condition {
        boolean met() throws Exception;
    }

    static void until(String what, Condition condition) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(SECONDS_EACH - 30);
        while (!condition.met()) {
            holds(System.nanoTime() < end, "waited in vain: " + what);
            Thread.sleep(50);
        }
    }

    private Suite() {}
}
