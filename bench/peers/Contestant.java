import com.sun.management.OperatingSystemMXBean;
import io.confluent.parallelconsumer.PCRetriableException;
import io.confluent.parallelconsumer.ParallelConsumerOptions;
import io.confluent.parallelconsumer.ParallelConsumerOptions.ProcessingOrder;
import io.confluent.parallelconsumer.ParallelStreamProcessor;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Locale;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.LongAdder;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** Confluent's parallel-consumer as a contestant. Arguments: brokers topic group records ordering workers sleepMS failOnce. */
public class Contestant {
  public static void main(String[] args) throws Exception {
    long records = Long.parseLong(args[3]);
    long sleep = Long.parseLong(args[6]);
    boolean failOnce = Boolean.parseBoolean(args[7]);
    Properties settings = new Properties();
    settings.put("bootstrap.servers", args[0]);
    settings.put("group.id", args[2]);
    settings.put("auto.offset.reset", "earliest");
    settings.put("enable.auto.commit", "false"); // it asks for that

    double cpu = cpu();
    long begin = System.nanoTime();
    var options = ParallelConsumerOptions.<byte[], byte[]>builder()
        .consumer(new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer()))
        .ordering(ProcessingOrder.valueOf(args[4]))
        .maxConcurrency(Integer.parseInt(args[5]))
        .defaultMessageRetryDelay(Duration.ZERO)
        .build();
    var consumer = ParallelStreamProcessor.createEosStreamProcessor(options);
    consumer.subscribe(List.of(args[1]));
    var handled = new AtomicLong();
    var first = new AtomicLong();
    var last = new AtomicLong();
    var slept = new LongAdder();
    var sink = new LongAdder();
    var all = new CountDownLatch(1);
    consumer.poll(context -> {
      if (first.get() == 0) first.compareAndSet(0, System.nanoTime());
      if (failOnce && context.getSingleRecord().getNumberOfFailedAttempts() == 0) throw new PCRetriableException("once");
      if (sleep > 0) {
        long from = System.nanoTime();
        try {
          Thread.sleep(sleep);
        } catch (InterruptedException e) {
          throw new RuntimeException(e);
        }
        slept.add(System.nanoTime() - from);
      }
      sink.add(context.value().length);
      if (handled.incrementAndGet() == records) {
        last.set(System.nanoTime());
        all.countDown();
      }
    });
    boolean ended = all.await(60, TimeUnit.SECONDS);
    cpu = cpu() - cpu;
    if (!ended) {
      System.err.println("handled " + handled + " of " + records + " in 60 s");
      System.exit(1);
    }
    System.out.printf(Locale.ROOT, "{\"records\":%d,\"seconds\":%f,\"join\":%f,\"cpu\":%f,\"rss_mib\":%f,\"handler\":%.9f}%n", records,
        (last.get() - first.get()) / 1e9, (first.get() - begin) / 1e9, cpu, rss(), slept.sum() / 1e9 / records);
    System.out.flush();
    consumer.closeDrainFirst(Duration.ofSeconds(20));
    System.exit(0);
  }

  static double cpu() {
    return ((OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime() / 1e9;
  }

  static double rss() throws Exception {
    Path status = Path.of("/proc/self/status");
    if (!Files.exists(status)) return 0;
    for (String line : Files.readAllLines(status)) {
      if (line.startsWith("VmHWM:")) return Double.parseDouble(line.replaceAll("[^0-9]", "")) / 1024;
    }
    return 0;
  }
}
