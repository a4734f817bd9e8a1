import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * What a Kafka must do for the Java client and for Kafka's own command-line tools. It runs alike against Kafka and against the embedded
 * log: {@code java Suite BROKERS [NAME…]}. It prints a line for each check and ends with 1 if one fails.
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
        List<String> wanted = List.of(arguments).subList(1, arguments.length);
        AtomicInteger failures = new AtomicInteger();
        int ran = 0;
        for (Named named : CHECKS) {
            if (!wanted.isEmpty() && !wanted.contains(named.name())) {
                continue;
            }
            ran++;
            one(named, new Place(arguments[0], named.name()), failures);
        }
        System.out.println(ran + " checks, " + failures.get() + " failed");
        System.out.flush();
        // Clients that a failed check left open must not keep the process.
        Runtime.getRuntime().halt(failures.get() == 0 && ran > 0 ? 0 : 1);
    }

    private static void one(Named named, Place place, AtomicInteger failures) throws InterruptedException {
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
            failures.incrementAndGet();
            failure[0].printStackTrace(System.out);
        }
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
